"""The network in PyTorch on the CPU. Answers each line of stdin (`encode`, `rates`) with a line of JSON.

Usage: torch_engine.py CONFIG CHECKPOINT FOLDER THREADS
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

import network

# As in rates.mjs: many times the caches of one core.
COPY_FLOATS = 64 * 2**20


class Torch:
    """Operations as PyTorch calls; values are tensors."""

    def __init__(self, table):
        self.table = table
        self.loaded = {}

    def weight(self, name):
        if name not in self.loaded:
            self.loaded[name] = torch.from_numpy(np.array(self.table[name]))
        return self.loaded[name]

    reshape = staticmethod(torch.reshape)
    transpose = staticmethod(torch.permute)
    add = staticmethod(torch.add)
    multiply = staticmethod(torch.mul)
    matmul = staticmethod(torch.matmul)
    gelu = staticmethod(F.gelu)
    mean = staticmethod(torch.mean)

    def linear(self, x, name):
        return F.linear(x, self.weight(name))

    def layer_norm(self, x, scale, shift):
        return F.layer_norm(x, x.shape[-1:], self.weight(scale), self.weight(shift), network.EPS)

    def unit(self, x):
        return F.normalize(x, dim=-1)

    def attention(self, q, k, v, bias):
        return F.scaled_dot_product_attention(q, k, v, self.weight(bias) if bias else None, scale=1.0)

    def depthwise(self, x, grid, name):
        # Planes in channels-last order, which is how the tokens lie in memory.
        weight = self.weight(f"{name}.weight")
        channels = len(weight)
        depth = grid[0]
        planes = F.pad(x.reshape(*grid, channels), (0, 0, 0, 0, 0, 0, 2, 0)).permute(0, 3, 1, 2)
        taps = [
            F.conv2d(planes[tap : tap + depth], weight[:, :, tap], None if tap else self.weight(f"{name}.bias"), padding=1, groups=channels)
            for tap in range(3)
        ]
        return (taps[0] + taps[1] + taps[2]).permute(0, 2, 3, 1).reshape(-1, channels)

    def argmax(self, x):
        return x.argmax(-1)

    def rows(self, name, indices):
        return self.weight(name)[indices]


def main(config, checkpoint, folder, threads):
    torch.set_num_threads(int(threads))
    vit = network.read_config(config)
    ops = Torch(network.weights(checkpoint, vit))
    grid = torch.from_numpy(np.load(f"{folder}/grid.npy"))
    shape = [1024, vit["dim"], ops.table["enc_spatial_transformer.layers.0.3.1.weight"].shape[0]]
    a, b = torch.randn(shape[:2]), torch.randn(shape[1:])

    def encode():
        started, cpu = time.perf_counter(), time.process_time()
        latent = network.latent(ops, vit, grid)[0].tolist()
        return {"latent": latent, "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}

    def fastest(work, times):
        best = float("inf")
        for _ in range(times):
            started = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - started)
        return best

    def rates():
        """The product in GFLOP/s; a copy in GB/s, read and written, without the allocation that `clone` would add."""
        source = torch.ones(COPY_FLOATS)
        target = torch.empty_like(source)
        return {
            "f32": 2e-9 * float(np.prod(shape)) / fastest(lambda: a @ b, 10),
            "copy": 8e-9 * COPY_FLOATS / fastest(lambda: target.copy_(source), 5),
        }

    answers = {"encode": encode, "rates": rates}
    print(json.dumps(torch.__version__), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            print(json.dumps(answers[line.strip()]()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

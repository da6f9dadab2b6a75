"""Writes what the engines are timed on, into the folder of one size: volume.nii, grid.npy, model.onnx with model.bin, product.onnx.

Usage: prepare.py CONFIG CHECKPOINT FOLDER
"""

import pathlib
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import network

# The first version of the operator set that has Gelu.
OPSET = 20
IR_VERSION = 10


class Graph:
    """Operations as ONNX nodes; values are their names."""

    def __init__(self, table):
        self.table = table
        self.nodes = []
        self.constants = {}

    def node(self, kind, *inputs, **attributes):
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name, value):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name):
        return self.constant(name, self.table[name])

    def shape(self, sizes):
        return self.constant(f"shape {sizes}", np.array(sizes, np.int64))

    def reshape(self, x, sizes):
        return self.node("Reshape", x, self.shape(sizes))

    def transpose(self, x, order):
        return self.node("Transpose", x, perm=order)

    def add(self, a, b):
        return self.node("Add", a, b)

    def multiply(self, a, b):
        return self.node("Mul", a, b)

    def matmul(self, a, b):
        return self.node("MatMul", a, b)

    def linear(self, x, name):
        return self.matmul(x, self.constant(f"{name} transposed", self.table[name].T))

    def layer_norm(self, x, scale, shift):
        return self.node("LayerNormalization", x, self.weight(scale), self.weight(shift), epsilon=network.EPS)

    def unit(self, x):
        norm = self.node("ReduceL2", x, self.constant("last axis", np.array([-1], np.int64)))
        return self.node("Div", x, self.node("Max", norm, self.constant("smallest norm", np.float32(1e-12))))

    def gelu(self, x):
        return self.node("Gelu", x)

    def attention(self, q, k, v, bias):
        logits = self.matmul(q, self.transpose(k, [0, 1, 3, 2]))
        if bias:
            logits = self.add(logits, self.weight(bias))
        return self.matmul(self.node("Softmax", logits, axis=-1), v)

    def depthwise(self, x, grid, name):
        """One two-dimensional convolution for each of the three depths that the kernel sees."""
        weight = self.table[f"{name}.weight"]
        channels = len(weight)
        depth, height, width = grid
        planes = self.transpose(self.reshape(x, [depth, height, width, channels]), [0, 3, 1, 2])
        padding = self.constant("two planes before", np.array([2, 0, 0, 0, 0, 0, 0, 0], np.int64))
        padded = self.node("Pad", planes, padding)
        total = None
        for tap in range(3):
            part = self.node("Slice", padded, self.shape([tap]), self.shape([tap + depth]), self.shape([0]))
            inputs = [part, self.constant(f"{name} {tap}", weight[:, :, tap])]
            if tap == 0:
                inputs.append(self.weight(f"{name}.bias"))
            part = self.node("Conv", *inputs, group=channels, pads=[1, 1, 1, 1])
            total = part if total is None else self.add(total, part)
        return self.reshape(self.transpose(total, [0, 2, 3, 1]), [-1, channels])

    def argmax(self, x):
        return self.node("ArgMax", x, axis=-1, keepdims=0)

    def rows(self, name, indices):
        return self.node("Gather", self.weight(name), indices)

    def mean(self, x, axis):
        return self.node("ReduceMean", x, self.shape([axis]), keepdims=0)

    def model(self, inputs, output, shape):
        self.nodes[-1].output[0] = output
        described = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in inputs.items()]
        result = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "ctmatch", described, result, list(self.constants.values()))
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])


def volume(depth, size):
    """HU [depth, height, width]: a body of soft tissue with two lungs and noise, in air."""
    random = np.random.default_rng(1)
    at = np.linspace(-1, 1, size)
    z, y, x = np.linspace(-1, 1, depth)[:, None, None], at[:, None], at
    hu = np.full((depth, size, size), -1000, np.int16)
    inside = lambda cx, cy, rx, ry: ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + 0 * z < 1
    hu[inside(0, 0, 0.85, 0.7)] = 40
    for side in (-1, 1):
        hu[inside(side * 0.4, 0, 0.3, 0.5) & (np.abs(z) < 0.8)] = -850
    return hu + random.integers(-60, 61, hu.shape, np.int16)


def nifti(hu, spacing_mm):
    """The volume on exactly the model's grid: stored left, posterior, superior, where the first axis is the grid's height."""
    depth, height, width = hu.shape
    dz, dy, dx = spacing_mm
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, height, width, depth, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)  # int16
    struct.pack_into("<8f", header, 76, 1, dy, dx, dz, 1, 1, 1, 1)
    struct.pack_into("<2f", header, 108, 352, 1)  # voxels begin, slope
    header[123] = 2  # mm
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, -dy, 0, 0, 0, 0, -dx, 0, 0, 0, 0, dz, 0)
    header[344:348] = b"n+1\0"
    return bytes(header) + np.ascontiguousarray(hu.transpose(0, 2, 1)).astype("<i2").tobytes()


def main(config, checkpoint, folder):
    vit = network.read_config(config)
    folder = pathlib.Path(folder)
    hu = volume(vit["frames"], vit["image_size"])
    (folder / "volume.nii").write_bytes(nifti(hu, vit["spacing_mm"]))
    grid = (np.clip(hu, -1000, 1000) / 1000).astype(np.float32)[None, None]
    np.save(folder / "grid.npy", grid)

    graph = Graph(network.weights(checkpoint, vit))
    network.latent(graph, vit, "grid")
    model = graph.model({"grid": list(grid.shape)}, "latent", [1, len(graph.table["projection"])])
    # Beside the graph: one protobuf message holds at most 2 GB, and a browser would hold the weights twice.
    (folder / "model.bin").unlink(missing_ok=True)
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="model.bin")
    onnx.checker.check_model(folder / "model.onnx", full_check=True)

    # The product of `ctmatch bench`: the first matrix of a feed-forward layer.
    m, k, n = shape = [1024, vit["dim"], graph.table["enc_spatial_transformer.layers.0.3.1.weight"].shape[0]]
    product = Graph({})
    product.matmul("a", product.constant("b", np.random.default_rng(2).standard_normal((k, n), np.float32)))
    onnx.save_model(product.model({"a": [m, k]}, "c", [m, n]), folder / "product.onnx")
    print(*shape)


if __name__ == "__main__":
    main(*sys.argv[1:])

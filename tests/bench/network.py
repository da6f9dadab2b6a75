"""The image tower and its head, written once against a small set of operations (`ops` below: an ONNX graph or PyTorch).

Weights come from a checkpoint that `ctmatch hash-checkpoint` wrote. The position bias of all pairs of tokens is computed here, as
`ctmatch convert` does, so that no engine is timed on a constant. One volume, f32.
"""

import json

import numpy as np

EPS = 1e-5
# The constant that multiplies the cosine logits instead of 1/sqrt(dim_head).
LOGIT_SCALE = 8.0


def read_config(path):
    """The `vit` section with `side` (tokens along height and width) and `depth` (slabs), and `spacing_mm`."""
    with open(path) as file:
        config = json.load(file)
    vit = config["vit"]
    vit["side"] = vit["image_size"] // vit["patch_size"]
    vit["frames"] = config["frames"]
    vit["depth"] = config["frames"] // vit["temporal_patch_size"]
    vit["spacing_mm"] = config["spacing_mm"]
    return vit


def read_checkpoint(path):
    """f32 tensors of a safetensors file by name, mapped, not read."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", offset=8 + length)
    return {
        name: data[slice(*info["data_offsets"])].view(np.float32).reshape(info["shape"])
        for name, info in header.items()
        if name != "__metadata__" and info["dtype"] == "F32"
    }


def weights(checkpoint, vit):
    """What the network below names: cut where one product serves two purposes, so that no engine has to copy activations apart."""
    tensors = read_checkpoint(checkpoint)
    tower = "visual_transformer."
    table = {name.removeprefix(tower): value for name, value in tensors.items() if name.startswith(tower)}
    for name in [name for name in table if name.endswith((".to_kv.weight", ".3.1.weight"))]:
        half = len(table[name]) // 2
        table[f"{name}.first"], table[f"{name}.second"] = table[name][:half], table[name][half:]
    for name in [name for name in table if name.endswith(".q_scale")]:
        table[name] = table[name] * np.float32(LOGIT_SCALE)
    rows = table["vq._codebook.embed"][0]
    table["codebook"] = rows
    table["codebook.unit"] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    table["position_bias"] = position_bias(table, vit["side"])
    table["projection"] = tensors["to_visual_latent.weight"]
    return table


def position_bias(table, side):
    """[heads, tokens, tokens] of one slab."""
    offsets = np.arange(1 - side, side, dtype=np.float32)
    offsets = np.sign(offsets) * np.log(np.abs(offsets) + 1)
    x = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 2)
    for layer in ("0.0", "1.0"):
        x = x @ table[f"spatial_rel_pos_bias.net.{layer}.weight"].T + table[f"spatial_rel_pos_bias.net.{layer}.bias"]
        x = np.where(x > 0, x, np.float32(0.1) * x)
    x = x @ table["spatial_rel_pos_bias.net.2.weight"].T + table["spatial_rel_pos_bias.net.2.bias"]
    row, column = np.divmod(np.arange(side * side), side)
    between = lambda at: at[:, None] - at[None, :] + side - 1
    pairs = between(row) * (2 * side - 1) + between(column)
    return np.ascontiguousarray(x.T[:, pairs])


def latent(ops, vit, grid):
    """Unit image latent [1, latent] of a model grid [1, 1, depth, height, width]."""
    dim, side, depth = vit["dim"], vit["side"], vit["depth"]
    patch, slab = vit["patch_size"], vit["temporal_patch_size"]
    plane = side * side

    x = ops.reshape(grid, [depth, slab, side, patch, side, patch])
    x = ops.transpose(x, [0, 2, 4, 1, 3, 5])
    x = ops.reshape(x, [depth * plane, slab * patch * patch])
    x = ops.layer_norm(x, "to_patch_emb.1.weight", "to_patch_emb.1.bias")
    x = ops.add(ops.linear(x, "to_patch_emb.2.weight"), ops.weight("to_patch_emb.2.bias"))
    x = ops.layer_norm(x, "to_patch_emb.3.weight", "to_patch_emb.3.bias")

    x = transformer(ops, vit, "spatial", x, [depth, plane], "position_bias")
    x = ops.transpose(ops.reshape(x, [depth, plane, dim]), [1, 0, 2])
    x = transformer(ops, vit, "temporal", ops.reshape(x, [plane * depth, dim]), [plane, depth], None)

    codes = ops.argmax(ops.linear(ops.unit(x), "codebook.unit"))
    rows = ops.reshape(ops.rows("codebook", codes), [plane, depth, dim])
    pooled = ops.reshape(ops.mean(rows, 1), [plane * dim, 1])
    return ops.unit(ops.reshape(ops.matmul(ops.weight("projection"), pooled), [1, -1]))


def transformer(ops, vit, name, x, sequences, bias):
    """`x` is [sequences * tokens, dim] throughout."""
    dim, heads, dim_head = vit["dim"], vit["heads"], vit["dim_head"]
    grid = [vit["depth"], vit["side"], vit["side"]]
    prefix = f"enc_{name}_transformer"

    def heads_of(rows, order):
        return ops.transpose(ops.reshape(rows, [*sequences, heads, dim_head]), order)

    def scaled(rows, scale):
        return ops.multiply(ops.unit(ops.reshape(rows, [*sequences, heads, dim_head])), ops.weight(scale))

    for layer in range(vit[f"{name}_depth"]):
        at = f"{prefix}.layers.{layer}"
        # The buffer is reinterpreted as a grid whatever its own order is: the network was trained so.
        x = ops.add(x, ops.depthwise(x, grid, f"{at}.0.dsconv"))
        q = scaled(ops.linear(ops.layer_norm(x, f"{at}.1.norm.gamma", f"{at}.1.norm.beta"), f"{at}.1.to_q.weight"), f"{at}.1.q_scale")
        k = scaled(ops.linear(x, f"{at}.1.to_kv.weight.first"), f"{at}.1.k_scale")
        v = heads_of(ops.linear(x, f"{at}.1.to_kv.weight.second"), [0, 2, 1, 3])
        context = ops.attention(ops.transpose(q, [0, 2, 1, 3]), ops.transpose(k, [0, 2, 1, 3]), v, bias)
        context = ops.reshape(ops.transpose(context, [0, 2, 1, 3]), [-1, heads * dim_head])
        x = ops.add(x, ops.linear(context, f"{at}.1.to_out.weight"))
        normed = ops.layer_norm(x, f"{at}.3.0.weight", f"{at}.3.0.bias")
        value, gate = (ops.linear(normed, f"{at}.3.1.weight.{half}") for half in ("first", "second"))
        x = ops.add(x, ops.linear(ops.multiply(value, ops.gelu(gate)), f"{at}.3.4.weight"))
    return ops.layer_norm(x, f"{prefix}.norm_out.gamma", f"{prefix}.norm_out.beta")

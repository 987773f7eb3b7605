"""Whole checkpoints as other tools write them, made from a model by plain round-to-nearest.

Written from the papers' formulas and the tools' own packing loops, with NumPy and plain integers; shares nothing with
the package.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.reference.formats import pack, round_to_nearest

#: QLoRA, appendix E; awq/utils/packing_utils.py.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
GROUP = 32

Tensors = dict[str, torch.Tensor]


def gptq(weight: np.ndarray, bits: int, symmetric: bool, version: int) -> tuple[Tensors, np.ndarray]:
    """AutoGPTQ's tensors and the weight that they stand for."""
    codes, scale, zero = round_to_nearest(weight, bits, GROUP, symmetric)
    zero = np.maximum(zero, 1)
    scale = scale.astype(np.float16)
    codes = _again(weight, scale, zero, bits)
    stored = (zero - (version == 1)).astype(np.int64)
    tensors = {
        "qweight": _t(pack(codes, bits).T), "qzeros": _t(pack(stored.T, bits)), "scales": _t(scale.T),
        "g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
    }  # fmt: skip
    return tensors, _values(codes, scale, zero)


def awq(weight: np.ndarray, order: tuple[int, ...] = AWQ_ORDER) -> tuple[Tensors, np.ndarray]:
    """AutoAWQ's GEMM tensors: nibble i of word c holds column 8 c + order[i]."""
    _, scale, zero = round_to_nearest(weight, 4, GROUP, False)
    scale = scale.astype(np.float16)
    codes = _again(weight, scale, zero, 4)

    def columns(values: np.ndarray) -> torch.Tensor:
        shuffled = values.reshape(len(values), -1, 8)[:, :, list(order)].reshape(len(values), -1)
        return _t(pack(shuffled.astype(np.int64), 4))

    tensors = {"qweight": columns(codes.T), "qzeros": columns(zero.T), "scales": _t(scale.T)}
    return tensors, _values(codes, scale, zero)


def nf4(weight: np.ndarray, block: int = 64) -> tuple[Tensors, np.ndarray]:
    """bitsandbytes' nf4: blocks of the flat weight, the earlier of two in the high nibble."""
    blocks = weight.reshape(-1, block).astype(np.float32)
    absmax = np.abs(blocks).max(1).astype(np.float32)
    book = np.array(NF4, dtype=np.float32)
    codes = np.abs(blocks[..., None] / np.maximum(absmax, 1e-30)[:, None, None] - book).argmin(-1).astype(np.uint8)
    flat = codes.reshape(-1)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "float32", "shape": list(weight.shape)}
    tensors = {
        "weight": _t((flat[::2] << 4 | flat[1::2])[:, None]), "weight.absmax": _t(absmax),
        "weight.quant_map": _t(book), "weight.quant_state.bitsandbytes__nf4": _json(state),
    }  # fmt: skip
    return tensors, (book[codes] * absmax[:, None]).reshape(weight.shape)


def int8(weight: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """bitsandbytes' LLM.int8: one scale a row."""
    SCB = np.abs(weight).max(1).astype(np.float32)
    codes = np.round(127 * weight / SCB[:, None]).astype(np.int8)
    tensors = {"weight": _t(codes), "SCB": _t(SCB), "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return tensors, codes * (SCB[:, None] / np.float32(127))


def fp8(weight: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """compressed-tensors' float-quantized: e4m3 codes, one scale a row."""
    scale = (np.abs(weight).max(1, keepdims=True) / 448).astype(np.float32)
    codes = torch.from_numpy((weight / scale).astype(np.float32)).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": _t(scale)}, codes.float().numpy() * scale


def nvfp4(weight: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """compressed-tensors' nvfp4: e2m1 codes, e4m3 scales of 16 over one fp32 scale; loaders round to bf16."""
    whole = np.float32(448 * 6 / np.abs(weight).max())
    parts = weight.reshape(len(weight), -1, 16)
    scale = torch.from_numpy((whole * np.abs(parts).max(-1) / 6).astype(np.float32)).to(torch.float8_e4m3fn)
    served = scale.float().numpy() / whole
    packed, meant = _e2m1(parts, served)
    tensors = {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": torch.tensor([whole])}
    return tensors, meant


def mxfp4(weight: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """OCP's MXFP4 (section 6.3): blocks of 32 share 2^(floor(log2 max) - 2), stored with a bias of 127."""
    parts = weight.reshape(len(weight), -1, 32)
    exponent = np.floor(np.log2(np.abs(parts).max(-1))) - 2
    packed, meant = _e2m1(parts, (2.0**exponent).astype(np.float32))
    return {"weight_packed": packed, "weight_scale": _t((exponent + 127).astype(np.uint8))}, meant


def _e2m1(parts: np.ndarray, scale: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Nearest codes [N, groups, n], two a byte, the earlier low; and what a loader makes of them."""
    book = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    codes = np.abs(np.abs(parts / scale[..., None])[..., None] - book).argmin(-1)
    values = np.where(parts < 0, -1, 1) * book[codes]
    nibbles = (codes + 8 * (parts < 0)).astype(np.uint8).reshape(len(parts), -1)
    product = torch.from_numpy((values * scale[..., None]).astype(np.float32)).reshape(len(parts), -1)
    return _t(nibbles[:, ::2] | nibbles[:, 1::2] << 4), product.to(torch.bfloat16).float().numpy()


def own_integers(weight: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """docs/formats.md, layout integers: a bit stream a row, zero points that are any number."""
    _, scale, zero = round_to_nearest(weight, 3, GROUP, False)
    middle = (zero - 4).astype(np.float32) + np.float32(0.25)
    parts = weight.reshape(len(weight), -1, GROUP)
    signed = np.clip(np.round(parts / scale[..., None] + middle[..., None]), -4, 3)
    stored = (signed + 4).reshape(weight.shape).astype(np.int64)
    tensors = {"codes": _t(pack(stored, 3)), "scale": _t(scale.astype(np.float32)), "zero": _t(middle)}
    meant = (signed.astype(np.float32) - middle[..., None]) * scale.astype(np.float32)[..., None]
    return tensors, meant.reshape(weight.shape)


def own_e5m2(weight: np.ndarray) -> tuple[Tensors, np.ndarray]:
    """docs/formats.md, layout float8: one scale a row."""
    scale = (np.abs(weight).max(1, keepdims=True) / 57344).astype(np.float32)
    codes = torch.from_numpy((weight / scale).astype(np.float32)).to(torch.float8_e5m2)
    return {"codes": codes, "scale": _t(scale)}, codes.float().numpy() * scale


def _own(layout: str, bits: int) -> dict[str, Any]:
    return {"quant_method": "quantrecipe", "version": 1, "modules": {"layout": layout, "num_bits": bits}}


def _fp4(layout: str, strategy: str, size: int) -> dict[str, Any]:
    return _ct(layout=layout, num_bits=4, type="float", strategy=strategy, group_size=size, symmetric=True)


def _ct(**weights: Any) -> dict[str, Any]:
    layout = weights.pop("layout")
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group},
        "ignore": ["lm_head"], "quantization_status": "compressed",
    }  # fmt: skip


def _gptq_config(version: int, symmetric: bool) -> dict[str, Any]:
    form = "gptq" if version == 1 else "gptq_v2"
    return {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": symmetric, "desc_act": False,
            "checkpoint_format": form}  # fmt: skip


Maker = Callable[[np.ndarray], tuple[Tensors, np.ndarray]]
KINDS: dict[str, tuple[Maker, dict[str, Any]]] = {
    "gptq": (lambda w: gptq(w, 4, True, 1), _gptq_config(1, True)),
    "gptq-asym": (lambda w: gptq(w, 4, False, 1), _gptq_config(1, False)),
    "gptq_v2": (lambda w: gptq(w, 4, True, 2), _gptq_config(2, True)),
    "gptq_v2-asym": (lambda w: gptq(w, 4, False, 2), _gptq_config(2, False)),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
    "int8": (int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "fp8": (fp8, _ct(layout="float-quantized", num_bits=8, type="float", strategy="channel", symmetric=True)),
    "nvfp4": (nvfp4, _fp4("nvfp4-pack-quantized", "tensor_group", 16)),
    "mxfp4": (mxfp4, _fp4("mxfp4-pack-quantized", "group", 32)),
    "own": (own_integers, _own("integers", 3)),
    "own-e5m2": (own_e5m2, _own("float8", 8)),
}  # fmt: skip


def convert(kind: str, model: Path, folder: Path, maker: Maker | None = None) -> dict[str, np.ndarray]:
    """Quantize every matrix of the blocks; returns what each reads back as. lm_head and embeddings stay."""
    make, config = KINDS[kind]
    folder.mkdir(parents=True)
    for path in model.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, folder / path.name)
    stored, meant = {}, {}
    for name, tensor in load_file(model / "model.safetensors").items():
        if tensor.dim() == 2 and ".layers." in name:
            module = name.removesuffix(".weight")
            tensors, meant[module] = (maker or make)(tensor.double().numpy())
            stored |= {f"{module}.{part}": value for part, value in tensors.items()}
        else:
            stored[name] = tensor
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    if config["quant_method"] == "quantrecipe":
        modules = {name: config["modules"] | {"shape": list(weight.shape)} for name, weight in meant.items()}
        config = config | {"modules": modules}
    change_config(folder, quantization_config=config)
    return meant


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def _again(weight: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: int) -> np.ndarray:
    """Nearest codes for the scales as stored."""
    parts = weight.reshape(len(weight), -1, GROUP)
    codes = np.round(parts / scale.astype(np.float64)[..., None]) + zero[..., None]
    return np.clip(codes, 0, 2**bits - 1).astype(np.int64).reshape(weight.shape)


def _values(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    parts = codes.reshape(len(codes), -1, GROUP) - zero[..., None]
    return (parts.astype(np.float16) * scale[..., None]).reshape(codes.shape)


def _t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _json(data: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(list(json.dumps(data).encode()), dtype=torch.uint8)


def tensors_of(folder: Path) -> Iterator[tuple[Path, Tensors]]:
    for path in sorted(folder.glob("*.safetensors")):
        yield path, load_file(path)


def change_tensors(folder: Path, change: Callable[[Tensors], None]) -> None:
    for path, tensors in tensors_of(folder):
        change(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

"""A quantized folder as a model whose layers keep their codes; read tensor by tensor, never dequantized whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantrecipe.errors import ModelError
from quantrecipe.modeling.adapter import attach_adapter
from quantrecipe.modeling.dequantized import DequantizedFolder
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import quantization_config
from quantrecipe.modeling.heap import give_back
from quantrecipe.modeling.skeleton import LinearInfo, Skeleton
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.runtime.layers import Inputs
from quantrecipe.runtime.pack import NoKernel, Target, quant_linear

#: By module name, from the model and its folder.
KernelInputs = Callable[[Skeleton, DequantizedFolder], Mapping[str, Inputs]]


@dataclass(slots=True)
class Loaded:
    """A model that runs. paths: how many layers take which path, and why.

    stored: the folder; None where it is not quantized. rounding: modules that round their inputs in the product.
    """

    model: Any
    skeleton: Skeleton
    dtype: torch.dtype
    stored: DequantizedFolder | None = None
    paths: Counter[tuple[str, str]] = field(default_factory=Counter)
    rounding: set[str] = field(default_factory=set)

    @property
    def weight_bytes(self) -> int:
        """Bytes of parameters and buffers, shared ones once."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data: one row a path and reason, most layers first."""
        return [{"path": path, "why": why, "layers": count} for (path, why), count in self.paths.most_common()]


def load(
    folder: Path, device: str, inputs: KernelInputs | None = None, dtype: torch.dtype | None = None,
    trust_remote_code: bool = False,
) -> Loaded:  # fmt: skip
    """The model in ``folder``, in ``dtype`` (None = as its config says; fp32 for fp16 on a CPU).

    inputs: says of which modules the product rounds the inputs, and how; where no kernel does, nothing rounds them.
    A folder that is not quantized is loaded as it is. Raises ModelError.
    """
    stored = ModelFolder.open(folder)
    quantized = bool(quantization_config(stored.config, folder))
    opened = DequantizedFolder.open(folder) if quantized else stored
    skeleton = Skeleton(opened, trust_remote_code)
    chosen = dtype or compute_dtype(config_dtype(stored), device)
    found = Loaded(skeleton.model, skeleton, chosen)
    if isinstance(opened, DequantizedFolder):
        opened.product, found.stored = chosen, opened
        rounded = {} if inputs is None else inputs(skeleton, opened)
        _replace_linears(found, opened, Target(torch.device(device), chosen), rounded)
    _load_rest(skeleton, chosen, device)
    attach_adapter(skeleton.model, folder)
    return found


def config_dtype(folder: ModelFolder) -> torch.dtype:
    """What the config says that the model computes in; else the first tensor of floats."""
    named = str(folder.config.get("dtype") or folder.config.get("torch_dtype")).removeprefix("torch.")
    if named in ("bfloat16", "float16", "float32"):
        return getattr(torch, named)  # type: ignore[no-any-return]
    dtypes = [folder.info(name).dtype for name in folder.names]
    return next((dtype for dtype in dtypes if dtype in (torch.bfloat16, torch.float16)), torch.float32)


def _replace_linears(found: Loaded, folder: DequantizedFolder, target: Target, inputs: Mapping[str, Inputs]) -> None:
    """Every quantized layer that a kernel multiplies, one at a time; the rest stays to be dequantized."""
    split = {part for parts in found.skeleton.fused.values() for part in parts}
    for info in found.skeleton.linears():
        if f"{info.name}.weight" in split or info.kind == "Other":
            continue
        module = found.skeleton.stored_name(f"{info.name}.weight").removesuffix(".weight")
        if module not in folder.modules:
            continue
        try:
            _replace(found, folder, info, module, target, inputs.get(info.name))
        except NoKernel as reason:
            folder.transposed |= {module} if info.kind == "Conv1D" else set()
            found.paths["dequantized", str(reason)] += 1
        give_back()


def _replace(  # noqa: PLR0913, PLR0917
    found: Loaded, folder: DequantizedFolder, info: LinearInfo, module: str, target: Target, inputs: Inputs | None
) -> None:
    if info.is_embedding:
        raise NoKernel("rows are looked up, not multiplied")
    if info.kind not in ("Linear", "Conv1D"):
        raise NoKernel("a class of its own, not torch's Linear")
    decoded = folder.reader.decode(folder.stored, module)
    if decoded.shape != (info.rows, info.columns):
        raise ModelError("a quantized matrix has the wrong shape", value=list(decoded.shape), limit=info.name)
    old: nn.Module = found.model.get_submodule(info.name)
    bias = found.skeleton.read(f"{info.name}.bias") if getattr(old, "bias", None) is not None else None
    bits = folder.reader.bits(module)
    try:
        layer = quant_linear(decoded, bits, bias, inputs, target)
    except NoKernel:
        if inputs is None:
            raise
        layer = quant_linear(decoded, bits, bias, None, target)
    found.model.set_submodule(info.name, layer)
    found.paths[layer.path, layer.why] += 1
    found.rounding |= {info.name} if layer.inputs is not None else set()


def _load_rest(skeleton: Skeleton, dtype: torch.dtype, device: str) -> None:
    """All parameters that are left; a tied head shares the embedding's, which is read once."""
    model: Any = skeleton.model
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = (
        head is not None and "weight" in head._parameters and bool(model.config.get_text_config().tie_word_embeddings)
    )
    if tied:
        head._parameters["weight"] = None
    for block in skeleton.blocks:
        skeleton.materialize(block.name, dtype, device)
        give_back()
    skeleton.materialize_outside(dtype, device)
    if tied:
        head._parameters["weight"] = embedding.weight
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    give_back()

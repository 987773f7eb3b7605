"""A folder as a model that computes, quantized or not; read tensor by tensor, never dequantized whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.dequantized import DequantizedFolder
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import quantization_config
from quantrecipe.modeling.heap import give_back
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.runtime.coded import CodedSkeleton, paths_of
from quantrecipe.runtime.pack import Target


@dataclass(slots=True)
class Loaded:
    """A model that runs, all its weights in memory. cache: how it keeps keys and values, in words."""

    model: Any
    skeleton: Skeleton
    dtype: torch.dtype
    cache: str = ""

    @property
    def weight_bytes(self) -> int:
        """Bytes of parameters and buffers, shared ones once."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data: one row a kind of quantized layer, most layers first."""
        return paths_of(self.skeleton)


def open_skeleton(
    folder: Path, device: str, dtype: torch.dtype | None = None, trust_remote_code: bool = False
) -> tuple[Skeleton, torch.dtype]:
    """The architecture of a folder, one that comes as codes where it is quantized; and what it computes in.

    dtype: None = as its config says; fp32 for fp16 on a CPU. Raises ModelError.
    """
    stored = ModelFolder.open(folder)
    chosen = dtype or compute_dtype(config_dtype(stored), device)
    if not quantization_config(stored.config, folder):
        return Skeleton(stored, trust_remote_code), chosen
    opened = DequantizedFolder.open(folder)
    assert isinstance(opened, DequantizedFolder)
    opened.product = chosen
    return CodedSkeleton(opened, Target(torch.device(device), chosen), trust_remote_code), chosen


def config_dtype(folder: ModelFolder) -> torch.dtype:
    """What the config says that the model computes in; else the first tensor of floats."""
    named = str(folder.config.get("dtype") or folder.config.get("torch_dtype")).removeprefix("torch.")
    if named in ("bfloat16", "float16", "float32"):
        return getattr(torch, named)  # type: ignore[no-any-return]
    dtypes = [folder.info(name).dtype for name in folder.names]
    return next((dtype for dtype in dtypes if dtype in (torch.bfloat16, torch.float16)), torch.float32)


def load_whole(skeleton: Skeleton, dtype: torch.dtype, device: str) -> Loaded:
    """The model with all its weights; a tied head shares the embedding's, which is read once."""
    model: Any = skeleton.model
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and bool(model.config.get_text_config().tie_word_embeddings)
    coded = isinstance(skeleton, CodedSkeleton) and any(skeleton.is_coded(one) for one in (head, embedding))
    if tied and not coded:
        head._parameters["weight"] = None
    for block in skeleton.blocks:
        skeleton.materialize(block.name, dtype, device)
        give_back()
    skeleton.materialize_outside(dtype, device)
    if tied and not coded:
        head._parameters["weight"] = embedding.weight
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(device)
    give_back()
    return Loaded(model, skeleton, dtype, str(dtype).removeprefix("torch."))

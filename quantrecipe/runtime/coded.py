"""A skeleton whose quantized layers come in as codes, block by block or all at once; others are dequantized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from quantrecipe.errors import ModelError
from quantrecipe.modeling.dequantized import DequantizedFolder
from quantrecipe.modeling.heap import give_back
from quantrecipe.modeling.skeleton import LinearInfo, Skeleton
from quantrecipe.runtime.embedding import QuantEmbedding, quant_embedding
from quantrecipe.runtime.explain import Taken, as_rows, taken
from quantrecipe.runtime.layers import Inputs, QuantLinear
from quantrecipe.runtime.pack import NoKernel, Target, quant_linear

Layer = QuantLinear | QuantEmbedding
#: Codes that were taken apart before freed memory is given back.
GIVE_BACK = 1 << 24


class CodedSkeleton(Skeleton):
    """The architecture of a quantized folder; ``materialize`` puts layers in that keep their codes.

    inputs: how products round their inputs, by module; where no kernel does, ``dress`` sees to it, which is called
    with each new layer and puts hooks on it. taken: what became of each module that was materialized.
    """

    def __init__(self, folder: DequantizedFolder, target: Target, trust_remote_code: bool = False) -> None:
        super().__init__(folder, trust_remote_code)
        self.codes, self.target = folder, target
        self.inputs: Mapping[str, Inputs] = {}
        self.dress: Callable[[str, Layer], None] = lambda name, layer: None
        self.taken: dict[str, Taken] = {}
        self._plain: dict[str, nn.Module] = {}
        self._passed = 0
        split = {part for parts in self.fused.values() for part in parts}
        matrices = [one for one in self.linears() if one.kind != "Other" and f"{one.name}.weight" not in split]
        stored = [(one, self.stored_module(one.name)) for one in matrices]
        self._quantized = [(one, module) for one, module in stored if module in folder.modules]
        folder.transposed |= {module for one, module in self._quantized if one.kind == "Conv1D"}

    def materialize(self, prefix: str, dtype: torch.dtype | None = None, device: str = "cpu") -> None:
        """As a skeleton's, in the target's dtype and on its device."""
        for info, module in self._quantized:
            if _under(info.name, prefix) and info.name not in self._plain:
                self._put(info, module)
                self._give_back(info.rows * info.columns)
        super().materialize(prefix, self.target.dtype, str(self.target.device))

    def release(self, prefix: str) -> None:
        """As a skeleton's; the modules of the architecture are in their places again."""
        for name in [name for name in self._plain if _under(name, prefix)]:
            self.model.set_submodule(name, self._plain.pop(name))
        super().release(prefix)

    def is_coded(self, module: nn.Module | None) -> bool:
        """Whether a module of the architecture is stored quantized."""
        return any(
            self._plain.get(one.name, self.model.get_submodule(one.name)) is module for one, _ in self._quantized
        )

    def rows(self) -> Counter[Taken]:
        """How many layers take which path; one that was not needed, as after a stop, is brought in to be asked."""
        for info, module in self._quantized:
            if info.name not in self.taken:
                self._put(info, module)
                self.release(info.name)
        return Counter(self.taken[info.name] for info, _ in self._quantized)

    def _give_back(self, codes: int) -> None:
        """Now and then: it takes milliseconds, as long as a small layer."""
        self._passed += codes
        if self._passed >= GIVE_BACK:
            self._passed = 0
            give_back()

    def _put(self, info: LinearInfo, module: str) -> None:
        old = self.model.get_submodule(info.name)
        try:
            layer = self._layer(info, module, old)
        except NoKernel as reason:
            self.taken[info.name] = Taken("dequantized", str(reason), None, (info.rows, info.columns))
            return
        self._plain[info.name] = old
        self.model.set_submodule(info.name, layer)
        self.taken[info.name] = taken(layer, self.target)
        self.dress(info.name, layer)

    def _layer(self, info: LinearInfo, module: str, old: nn.Module) -> Layer:
        if info.kind not in ("Linear", "Conv1D") and type(old) is not nn.Embedding:
            raise NoKernel("a class of its own, not torch's Linear or Embedding")
        decoded = self.codes.reader.decode(self.codes.stored, module)
        if decoded.shape != (info.rows, info.columns):
            raise ModelError("a quantized matrix has the wrong shape", value=list(decoded.shape), limit=info.name)
        bits = self.codes.reader.bits(module)
        if info.is_embedding:
            return quant_embedding(decoded, bits, self.target)
        bias = self.read(f"{info.name}.bias") if getattr(old, "bias", None) is not None else None
        inputs = self.inputs.get(info.name)
        try:
            return quant_linear(decoded, bits, bias, inputs, self.target)
        except NoKernel:
            if inputs is None:
                raise
            return quant_linear(decoded, bits, bias, None, self.target)


def paths_of(skeleton: Skeleton) -> list[dict[str, Any]]:
    """A row a kind of quantized layer, most layers first; none where nothing is quantized."""
    return as_rows(skeleton.rows()) if isinstance(skeleton, CodedSkeleton) else []


def _under(name: str, prefix: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")

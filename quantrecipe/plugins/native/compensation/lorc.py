"""LoRC: low-rank compensation of the quantization error (ZeroQuant-V2, Yao et al., arXiv:2303.08302, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.hooks import RemovableHandle

from quantrecipe.modeling.adapter import Factors, attach
from quantrecipe.plugins.native.compensation.low_rank import truncated_svd
from quantrecipe.plugins.native.compensation.peft_files import write_adapter
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.linear import get_weight
from quantrecipe.plugins.native.stages import Compensated, Compensation
from quantrecipe.recipe_transforms import LorcCompensation


def lorc(E: torch.Tensor, rank: int) -> Factors:
    """U_hat = U_m S_m^(1/2) [N, m] and V_hat = S_m^(1/2) V_m [m, K] of the error E = W - W_hat [N, K], m = rank.

    The paper's steps I and II; U_hat V_hat is the closest matrix of that rank to E.
    """
    U, S, Vt = truncated_svd(E, rank)
    root = S.sqrt()
    return Factors(root.unsqueeze(1) * Vt, U * root)


def on_eight_bits(factors: Factors) -> Factors:
    """Both rounded to symmetric 8-bit integers with a scale a rank; the paper finds no loss in that."""
    return Factors(_rounded(factors.A, 1), _rounded(factors.B, 0))


def _rounded(values: torch.Tensor, dim: int) -> torch.Tensor:
    scale = (values.abs().amax(dim, keepdim=True) / 127).clamp_min(1e-30)
    return (values / scale).round() * scale


class Lorc(Compensation):
    """Adds each layer's error back at a low rank, and writes the factors as a peft adapter with alpha = rank."""

    name = "lorc"

    def __init__(self, part: LorcCompensation) -> None:
        self.rank, self.factor_bits = part.rank, part.factor_bits
        self._block: int | None = None
        self._attached: list[RemovableHandle] = []

    def compensate(self, layer: Layer, weight: torch.Tensor, hessian: Hessian | None) -> Compensated | None:
        """Attach the factors to the layer while its block is under way; None for the head and for experts."""
        block = layer.planned.info.block
        self._leave(block)
        if block is None or layer.planned.info.is_expert:  # loaders keep experts fused, where no adapter fits
            return None
        quantized = get_weight(layer.module)
        exact = lorc(weight - quantized, self.rank)
        rounded = on_eight_bits(exact) if self.factor_bits == 8 else exact
        dtype: torch.dtype = layer.module.weight.dtype  # type: ignore[assignment]
        factors = Factors(rounded.A.to(dtype).contiguous(), rounded.B.to(dtype).contiguous())
        self._attached += attach(layer.module, factors)
        beside = {f"{layer.name}.lora_A.weight": factors.A, f"{layer.name}.lora_B.weight": factors.B}
        served = quantized + factors.B.float() @ factors.A.float()
        return Compensated(served, beside, f"error at rank {self.rank} beside it")

    def _leave(self, block: int | None) -> None:
        """Take the factors of the block before off its modules."""
        if block != self._block:
            for handle in self._attached:
                handle.remove()
            self._block, self._attached = block, []

    def write(self, folder: Path, beside: Mapping[str, torch.Tensor]) -> None:
        """The adapter's two files."""
        write_adapter(folder, self.rank, beside)

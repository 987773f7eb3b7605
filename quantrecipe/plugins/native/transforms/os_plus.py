"""Outlier Suppression+ (Wei et al., arXiv:2304.09145): channels are centred by a shift, then scaled."""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.stages import Block
from quantrecipe.plugins.native.transforms.loss import output_error
from quantrecipe.plugins.native.transforms.scaling import ChannelScaling, Chosen, Site
from quantrecipe.recipe_transforms import OutlierSuppressionTransform

STEPS = 50


def shifts(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """z_j = (max X_j + min X_j) / 2 (equation 2): both [K], over the calibration text."""
    return (low + high) / 2


def outlier_scales(extent: torch.Tensor, threshold: float) -> torch.Tensor:
    """s_j = max(1, max|X_j - z_j| / t) (equation 6): channels beyond t are scaled onto it. extent: [K]."""
    return (extent / threshold).clamp_min(1.0)


def thresholds(extent: torch.Tensor) -> list[float]:
    """Candidates for t: from no scaling at all down to a fiftieth of the widest channel, in equal steps."""
    widest = float(extent.max())
    return [widest * step / STEPS for step in range(STEPS, 0, -1)] if widest > 0 else []


class OutlierSuppressionPlus(ChannelScaling):
    """Shifts where source and targets have biases (LayerNorm models), then scales by the best threshold."""

    name = "outlier-suppression-plus"
    needs_quantized_inputs = True

    def __init__(self, part: OutlierSuppressionTransform) -> None:
        super().__init__()
        self.shift = part.shift
        self._fixed: list[str] = []

    def choose(self, site: Site) -> Chosen | None:
        """The threshold of least output error over the shifted inputs."""
        low, high = site.low, site.high
        z = shifts(low, high) if self.shift and site.shifts else torch.zeros_like(low)
        if self.shift and not site.shifts:
            self._fixed.append(site.fold.source)
        extent = torch.maximum(high - z, z - low)
        tried = [outlier_scales(extent, t) for t in thresholds(extent)]
        if not tried:
            return None
        sample = site.seen.sample - z
        return Chosen(min(tried, key=lambda s: output_error(sample, site.targets, s)), z)

    def apply(self, block: Block) -> None:
        """As every scaling; says of the first block where channels are scaled and not shifted."""
        super().apply(block)
        if self._fixed and block.index == 0:
            places = ", ".join(self._fixed)
            block.note(f"{self.name}: scales only, no shift, behind {places}: no bias there to fold a shift into")

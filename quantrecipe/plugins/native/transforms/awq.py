"""AWQ (Lin et al., arXiv:2306.00978): salient weight channels scaled up before they are rounded."""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.transforms.loss import output_error
from quantrecipe.plugins.native.transforms.scaling import ChannelScaling, Chosen, Site
from quantrecipe.recipe_transforms import AwqTransform

LEAST = 1e-4


def awq_scales(x_mean: torch.Tensor, alpha: float) -> torch.Tensor:
    """s = s_X^alpha (equation 5), s_X = mean|X_j| [K]; divided by sqrt(max s min s), as the official code does.

    An s of one value for all channels changes nothing; so does alpha = 0.
    """
    s = x_mean.clamp_min(LEAST) ** alpha
    return (s / (s.max() * s.min()).sqrt()).clamp_min(LEAST)


class Awq(ChannelScaling):
    """grid: how many alphas are tried, from 0 (no scaling) on."""

    name = "awq"

    def __init__(self, part: AwqTransform) -> None:
        super().__init__()
        self.grid = part.grid

    def choose(self, site: Site) -> Chosen:
        """The scales of least output error, with weights (and inputs) rounded as they will be."""
        mean, sample = site.tie(site.seen.mean), site.seen.sample
        tried = [awq_scales(mean, step / self.grid) for step in range(self.grid)]
        return Chosen(min(tried, key=lambda s: output_error(sample, site.targets, s)))

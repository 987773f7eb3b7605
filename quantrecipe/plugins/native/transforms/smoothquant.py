"""SmoothQuant (Xiao et al., arXiv:2211.10438): difficulty moved from activations to weights, channel by channel."""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.transforms.loss import output_error
from quantrecipe.plugins.native.transforms.scaling import ChannelScaling, Chosen, Site
from quantrecipe.recipe_transforms import SmoothQuantTransform

#: The official code's least factor.
LEAST = 1e-5
#: The searched alphas: 0, 1/20, …, 1.
STEPS = 20


def smooth_scales(x_max: torch.Tensor, w_max: torch.Tensor, alpha: float) -> torch.Tensor:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) (equation 4), 1 where a channel of either is empty.

    x_max, w_max: fp32 [K], the greatest magnitude of each input channel over the calibration text, and over the
    columns of all layers that share it.
    """
    s = x_max.clamp_min(LEAST) ** alpha / w_max.clamp_min(LEAST) ** (1 - alpha)
    return torch.where((x_max > 0) & (w_max > 0), s.clamp_min(LEAST), 1.0)


class SmoothQuant(ChannelScaling):
    """alpha: the share of the difficulty that goes to the weights; ``search`` tries a grid at every site."""

    name = "smoothquant"
    needs_quantized_inputs = True

    def __init__(self, part: SmoothQuantTransform) -> None:
        super().__init__()
        self.alpha, self.norms_only = part.alpha, part.places == "norms"

    def choose(self, site: Site) -> Chosen:
        """Scales by equation 4; the alpha of least output error where it is searched."""
        x_max, w_max = site.magnitude, site.w_max
        if self.alpha != "search":
            return Chosen(smooth_scales(x_max, w_max, self.alpha))
        sample = site.seen.sample
        tried = [smooth_scales(x_max, w_max, step / STEPS) for step in range(STEPS + 1)]
        return Chosen(min(tried, key=lambda s: output_error(sample, site.targets, s)))

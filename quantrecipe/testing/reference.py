"""Round-to-nearest by the textbook's formula in float64: what a backend's result is held against."""

from __future__ import annotations

import torch

from quantrecipe.schemes import QuantizationArgs


def rounded(weight: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """Weight [N, K] on the nearest points of an integer grid, a scale a row or group, in float64.

    Symmetric: s = max|w| / (2^(b-1) - 0.5), so that the grid's ends are both used. Asymmetric: from min to max.
    """
    columns = args.group_size or weight.shape[1]
    spans = weight.double().reshape(len(weight), -1, columns)
    levels = 2**args.num_bits
    if args.symmetric:
        scale = spans.abs().amax(-1, keepdim=True).clamp_min(1e-12) / ((levels - 1) / 2)
        codes = (spans / scale).round().clamp(-levels // 2, levels // 2 - 1)
        symmetric: torch.Tensor = (codes * scale).reshape(weight.shape)
        return symmetric
    low, high = spans.amin(-1, keepdim=True).clamp_max(0), spans.amax(-1, keepdim=True).clamp_min(0)
    scale = (high - low).clamp_min(1e-12) / (levels - 1)
    zero = (-low / scale).round()
    codes = ((spans / scale).round() + zero).clamp(0, levels - 1)
    asymmetric: torch.Tensor = ((codes - zero) * scale).reshape(weight.shape)
    return asymmetric


def relative_error(weight: torch.Tensor, served: torch.Tensor) -> float:
    """||W - W_q||_F / ||W||_F in float64."""
    first, second = weight.double(), served.double()
    return float((first - second).norm() / first.norm())


def mean_kl(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean KL(first || second) in nats of logits [..., vocabulary]."""
    log_first, log_second = first.double().log_softmax(-1), second.double().log_softmax(-1)
    return float((log_first.exp() * (log_first - log_second)).sum(-1).mean())

"""RPTQ's clusters (Yuan et al., arXiv:2304.01089): channels of alike range share a scale, and lie side by side."""

from __future__ import annotations

import torch

ROUNDS = 50


def cluster(low: torch.Tensor, high: torch.Tensor, count: int) -> torch.Tensor:
    """K-means over the points (max X_j, min X_j) (section 3.3): int64 [K], the cluster of each channel.

    low, high: fp32 [K]. At most ``count`` clusters, numbered by falling width, none empty. It begins with centres
    spread evenly over the channels in order of width, so that it is the same every time.
    """
    points = torch.stack([high, low], 1).double()
    by_width = torch.argsort(high - low, descending=True, stable=True)
    seeds = torch.linspace(0, len(points) - 1, min(count, len(points)), dtype=torch.float64).round().long()
    centres = points[by_width[seeds]]
    labels = torch.cdist(points, centres).argmin(1)
    for _ in range(ROUNDS):
        sums = torch.zeros_like(centres).index_add_(0, labels, points)
        sizes = torch.bincount(labels, minlength=len(centres))
        centres = torch.where((sizes > 0).unsqueeze(1), sums / sizes.clamp_min(1).unsqueeze(1), centres)
        moved = torch.cdist(points, centres).argmin(1)
        if torch.equal(moved, labels):
            break
        labels = moved
    return _numbered(labels, high - low)


def _numbered(labels: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """The same clusters numbered from the widest on, without gaps."""
    known = torch.unique(labels)
    widths = torch.stack([width[labels == one].max() for one in known])
    rank = torch.empty(int(known.max()) + 1, dtype=torch.int64)
    rank[known[torch.argsort(widths, descending=True, stable=True)]] = torch.arange(len(known))
    return rank[labels]


def ranges(low: torch.Tensor, high: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and greatest of each channel's cluster, both [K]."""
    count = int(labels.max()) + 1
    least = torch.full((count,), torch.inf).scatter_reduce(0, labels, low, "amin")
    most = torch.full((count,), -torch.inf).scatter_reduce(0, labels, high, "amax")
    return least[labels], most[labels]

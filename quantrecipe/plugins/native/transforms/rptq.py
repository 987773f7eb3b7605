"""RPTQ (Yuan et al., arXiv:2304.01089): channels in clusters of alike range, a static scale for each cluster."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.rounding import scale_and_zero
from quantrecipe.plugins.native.stages import Block, Parameters, Side, Transform
from quantrecipe.plugins.native.transforms.clusters import cluster, ranges
from quantrecipe.plugins.native.transforms.fold import Writer
from quantrecipe.plugins.native.transforms.inputs import observe
from quantrecipe.plugins.native.transforms.reorder import junctions, reorder
from quantrecipe.plugins.native.transforms.wiring import Wiring, wirings
from quantrecipe.recipe_transforms import RptqTransform


class Rptq(Transform):
    """clusters: the most that one layer's inputs are parted into.

    Second layers of MLPs get their inputs in the order of their clusters, folded into the layers before them. Behind
    norms and inside heads channels keep their place (the paper's norm writes them out in another order, which takes a
    kernel); every channel has its cluster's scale all the same.
    """

    name = "rptq"
    inputs: frozenset[Side] = frozenset({"original"})

    def __init__(self, part: RptqTransform) -> None:
        self.clusters = part.clusters
        self._wirings: Sequence[Wiring] = ()

    def outside(self, model: Parameters) -> None:
        """Find out which orders are free, before any block is loaded."""
        self._wirings = wirings(model.module)

    def apply(self, block: Block) -> None:
        """Order what can be ordered; give each layer its static scales."""
        layers = {name.removeprefix(f"{block.name}."): one for name, one in block.layers.items() if _is_static(one)}
        seen = {name: one for name, one in observe(block, layers).items() if one.tokens}
        labels = {name: cluster(one.low, one.high, self.clusters) for name, one in seen.items()}
        orders = self._reorder(block, labels)
        for name, found in seen.items():
            order = orders.get(name, torch.arange(len(found.low)))
            span = ranges(found.low[order], found.high[order], labels[name][order])
            _set_scales(layers[name], *span)
        if block.index == 0:
            ordered = ", ".join(orders) or "none"
            block.note(
                f"{self.name}: inputs of {ordered} lie in the order of their clusters; others keep their place"
            )

    def _reorder(self, block: Block, labels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Layer -> the order that its inputs were put in."""
        writer, orders = Writer(block, frozenset(block.layers)), {}
        for place in junctions(self._wirings[block.index]):
            if place.target in labels:
                orders[place.target] = torch.argsort(labels[place.target], stable=True)
                reorder(writer, place, orders[place.target])
        return orders


def _set_scales(layer: Layer, least: torch.Tensor, most: torch.Tensor) -> None:
    """Scale and zero point of each channel [K] from its cluster's range, in the type that they are stored in."""
    assert layer.rounding is not None
    dtype: torch.dtype = layer.module.weight.dtype  # type: ignore[assignment]
    layer.rounding.fixed = scale_and_zero(least.to(dtype), most.to(dtype), layer.rounding.args)


def _is_static(layer: Layer) -> bool:
    return layer.rounding is not None and not layer.rounding.args.dynamic

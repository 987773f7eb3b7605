"""Transforms that scale channels: SmoothQuant, AWQ and Outlier Suppression+ as stages of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantrecipe.plugins.native.linear import get_weight
from quantrecipe.plugins.native.stages import Block, Parameters, Side, Transform
from quantrecipe.plugins.native.transforms.fold import Writer, by_source, can_shift, rescale, source_size
from quantrecipe.plugins.native.transforms.inputs import InputStatistics, observe
from quantrecipe.plugins.native.transforms.loss import Target
from quantrecipe.plugins.native.transforms.wiring import Fold, Wiring, wirings


@dataclass(frozen=True, slots=True)
class Site:
    """One place where channels can be scaled.

    seen: what the targets receive, X [T, K]. weights: fp32 [N, K] of all targets, quantized or not.
    targets: those that will be quantized. size: outputs of the source. shifts: whether channels can be shifted.
    """

    seen: InputStatistics
    weights: Sequence[torch.Tensor]
    targets: Sequence[Target]
    fold: Fold
    size: int
    shifts: bool

    def tie(self, values: torch.Tensor) -> torch.Tensor:
        """Of the inputs [K] that follow one output of the source, the greatest value, for each of them."""
        return by_source(values, self.fold, self.size, 0.0)[self.fold.rows]

    @property
    def low(self) -> torch.Tensor:
        """The least input of each channel [K]; the same where channels follow one output."""
        return -self.tie(-self.seen.low)

    @property
    def high(self) -> torch.Tensor:
        """The greatest."""
        return self.tie(self.seen.high)

    @property
    def magnitude(self) -> torch.Tensor:
        """max|X_j|."""
        return torch.maximum(self.high, -self.low)

    @property
    def w_max(self) -> torch.Tensor:
        """max|W_j| over the columns of all targets."""
        return self.tie(torch.stack([weight.abs().amax(0) for weight in self.weights]).amax(0))


@dataclass(frozen=True, slots=True)
class Chosen:
    """x -> (x - z) / s for the inputs of a site, both [K]; None = 0."""

    s: torch.Tensor
    z: torch.Tensor | None = None


class ChannelScaling(Transform):
    """Looks at every site of a block in turn, in the order in which the block runs, and scales it."""

    inputs: frozenset[Side] = frozenset({"original"})
    #: Whether the inputs of at least one target must be quantized.
    needs_quantized_inputs = False
    #: Whether only what follows a norm is scaled.
    norms_only = False

    def __init__(self) -> None:
        self._wirings: Sequence[Wiring] = ()
        self._said = False

    def choose(self, site: Site) -> Chosen | None:
        """The scales and shifts of one site; None leaves it as it is."""
        raise NotImplementedError

    def outside(self, model: Parameters) -> None:
        """Find out what folds into what, before any block is loaded."""
        self._wirings = wirings(model.module)

    def apply(self, block: Block) -> None:
        """Scale a block's channels."""
        writer = Writer(block, frozenset(block.layers))
        folds = [fold for fold in self._wirings[block.index].folds if self._serves(block, fold)]
        seen = observe(block, [fold.targets[0] for fold in folds])
        for fold in folds:
            site = self._site(block, writer, fold, seen[fold.targets[0]])
            chosen = self.choose(site)
            if chosen is not None:
                _fold_in(writer, site, chosen)
        self._say(block, folds)

    def _site(self, block: Block, writer: Writer, fold: Fold, seen: InputStatistics) -> Site:
        weights = [get_weight(writer.module(name)) for name in fold.targets]
        targets = [
            Target(weight, layer.group)
            for name, weight in zip(fold.targets, weights, strict=True)
            if (layer := block.layers.get(f"{block.name}.{name}")) is not None
        ]
        return Site(seen, weights, targets, fold, source_size(writer, fold), can_shift(writer, fold))

    def _serves(self, block: Block, fold: Fold) -> bool:
        """Whether scaling serves anything here."""
        if not fold.scales or (self.norms_only and fold.norm is None):
            return False
        layers = [block.layers.get(f"{block.name}.{name}") for name in fold.targets]
        groups = [layer.group for layer in layers if layer is not None]
        return any(group.input_activations is not None or not self.needs_quantized_inputs for group in groups)

    def _say(self, block: Block, folds: Sequence[Fold]) -> None:
        """Once: the quantized layers that this transform cannot reach."""
        if self._said:
            return
        self._said = True
        reached = {f"{block.name}.{name}" for fold in folds for name in fold.targets}
        missed = sorted({name.rpartition(".")[2] for name in block.layers if name not in reached})
        if missed:
            block.note(f"{self.name}: nothing folds into {', '.join(missed)}; they are quantized as they are")


def _fold_in(writer: Writer, site: Site, chosen: Chosen) -> None:
    fold, size = site.fold, site.size
    s = by_source(chosen.s, fold, size, 1.0)
    if chosen.z is None or not site.shifts:
        rescale(writer, fold, s)
        return
    z = torch.zeros(size).index_copy_(0, fold.rows, chosen.z)
    rescale(writer, fold, s, z)

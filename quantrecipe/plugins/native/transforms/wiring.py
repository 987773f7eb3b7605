"""What folds into what: norm to the layers that share its output, v to o, up to down, fc1 to fc2 through a ReLU.

Nothing is told by name. A source is a norm or a linear layer; its targets are the linear layers whose input
follows its output channel by channel. Each claim is tried out on the block's own forward (see probe.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from quantrecipe.errors import BackendError
from quantrecipe.modeling.experts import experts_of
from quantrecipe.plugins.native.transforms.norms import NormFacts
from quantrecipe.plugins.native.transforms.observe import close, first_token, same, touches_only
from quantrecipe.plugins.native.transforms.probe import Observed, Probe, probes
from quantrecipe.plugins.native.transforms.residual import Residual, residual

BASE = 8


@dataclass(frozen=True, slots=True)
class Fold:
    """Channels that pass from a source to its targets unmixed; all names are the block's own.

    rows: int64 [K], the source's output that each input of the targets follows (grouped queries repeat one, a
    fused qkv has the values anywhere). scales: a factor on an output, 1/s, is undone by s on the targets' columns.
    shifts: so is an added constant. Neither where only the order of channels may change (GELU between them).
    norm: what the source is, where it is one.
    """

    source: str
    targets: tuple[str, ...]
    rows: torch.Tensor
    scales: bool
    shifts: bool
    norm: NormFacts | None = None

    @property
    def kind(self) -> Literal["norm", "linear"]:
        """What the source is."""
        return "norm" if self.norm else "linear"


@dataclass(frozen=True, slots=True)
class Wiring:
    """One block's folds, in the order in which their targets run, and its use of the residual stream."""

    folds: tuple[Fold, ...]
    residual: Residual


def wirings(model: Any) -> list[Wiring]:
    """The wiring of every block of a model of transformers; blocks of one make are tried once."""
    found: dict[object, Wiring] = {}
    try:
        all_probes = probes(model)
        for probe in all_probes:
            if probe.make not in found:
                found[probe.make] = wiring(probe)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise BackendError(
            "transforms do not understand the blocks of this architecture",
            value=type(model).__name__,
            limit=str(error).splitlines()[0][:160],
            remedy="leave transforms out",
        ) from error
    return [found[probe.make] for probe in all_probes]


def wiring(probe: Probe) -> Wiring:
    """The folds of one block."""
    base = probe.run()
    order = {name: place for place, name in enumerate(base.inputs)}
    folds = [fold for name in order if (fold := _fold(probe, base, name)) is not None]
    folds.sort(key=lambda fold: min(order[target] for target in fold.targets))
    return Wiring(tuple(folds), residual(probe, base, folds))


def _is_expert(name: str) -> bool:
    """Experts are left alone: those that no token visits are not seen, nor is what the router makes of its input."""
    return experts_of(f"{name}.weight") is not None


def _fold(probe: Probe, base: Observed, source: str) -> Fold | None:
    """The fold that begins at ``source``; None where its output goes elsewhere too, or is mixed."""
    random = _signed(base.inputs[source], probe.sizes[source])
    moved = probe.run({source: random})
    targets = [name for name in probe.linears if name in base.inputs and not same(moved, base, name)]
    if not targets or any(map(_is_expert, (source, *targets))):
        return None
    rows = _follow(probe, source, targets)
    if rows is None:
        return None
    used = torch.zeros(probe.sizes[source], dtype=torch.bool).index_fill_(0, rows, True)
    factor = torch.where(used, torch.rand(len(used), generator=torch.Generator().manual_seed(3)) + 0.5, 1.0)
    scaled, shifted = probe.run({source: random * factor}), probe.run({source: random + (factor - 1)})
    if not touches_only(scaled, moved, [source, *targets]):
        return None
    scales = all(close(scaled.inputs[t], moved.inputs[t] * factor[rows]) for t in targets)
    shifts = all(close(shifted.inputs[t], moved.inputs[t] + (factor - 1)[rows]) for t in targets)
    norm = probe.norms.get(source)
    return Fold(source, tuple(targets), rows, scales, shifts and (norm is None or norm.has_bias), norm)


def _follow(probe: Probe, source: str, targets: list[str]) -> torch.Tensor | None:
    """The source's output that each input of the targets follows, or None where they are mixed or disagree.

    Looks at the first token only, which attends to nothing but itself. The outputs are numbered in digits of
    base 8; what a target receives for a digit is looked up among what it receives when all outputs are equal.
    """
    size = probe.sizes[source]
    levels = [probe.run({source: torch.full((size,), float(k))}) for k in range(1, BASE + 1)]
    tables = {t: torch.stack([first_token(level, t) for level in levels]) for t in targets}
    maps = {t: torch.zeros(tables[t].shape[1], dtype=torch.int64) for t in targets}
    numbers, place = torch.arange(size), 1
    while place < size:
        observed = probe.run({source: ((numbers // place) % BASE + 1).float()})
        for target, table in tables.items():
            distance, digit = (table - first_token(observed, target)).abs().min(0)
            apart = (table[1:] - table[:-1]).abs().amin(0)
            if bool((distance * 100 > apart).any()) or not bool((apart > 0).all()):
                return None
            maps[target] += digit * place
        place *= BASE
    first, *others = maps.values()
    agree = all(torch.equal(first, other) for other in others) and bool((first < size).all())
    return first if agree else None


def _signed(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """Random outputs of both signs, one row a token."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(inputs.reshape(-1, inputs.shape[-1]).shape[0], size, generator=generator)

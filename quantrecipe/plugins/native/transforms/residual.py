"""Whether a block treats its residual stream alike in every direction, so that the stream may be rotated.

It does where the stream is only added to, multiplied by numbers, and read through norms whose output goes to linear
layers alone. Tried on the block's own forward: with all matrices constant, a change of the input or of a writer's
output must reach the block's output and its norms as a multiple of itself, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from quantrecipe.plugins.native.transforms.observe import close, same
from quantrecipe.plugins.native.transforms.probe import Observed, Probe

if TYPE_CHECKING:
    from quantrecipe.plugins.native.transforms.wiring import Fold


@dataclass(frozen=True, slots=True)
class Residual:
    """writers: linear layers whose output is added to the stream. readers: each norm of it, and its targets.

    fault: why the stream cannot be rotated; None where it can.
    """

    writers: tuple[str, ...] = ()
    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    fault: str | None = None


def residual(probe: Probe, base: Observed, folds: Iterable[Fold]) -> Residual:
    """A block's writers and readers."""
    hidden = probe.x.shape[-1]
    change = torch.randn(hidden, generator=torch.Generator().manual_seed(4))
    read = {fold.source: fold.targets for fold in folds if fold.norm is not None and fold.scales}
    moved = probe.run(x=probe.x + change)
    readers = {name for name in probe.norms if not same(moved, base, name)}
    faults = [_fault(moved, base, change, readers)]
    faults += [f"the output of {name} goes elsewhere than into linear layers" for name in sorted(readers - set(read))]
    writers = []
    for name in base.inputs:
        if probe.sizes[name] != hidden or name in read:
            continue
        shifted = probe.run({name: probe.constants[name] + change})
        if close(shifted.output, base.output):
            continue
        writers.append(name)
        faults.append(_fault(shifted, base, change, readers))
        if name in probe.norms:
            faults.append(f"the output of {name}, a norm, is added to the residual stream")
    norms = {name: read[name] for name in base.inputs if name in readers & set(read)}
    return Residual(tuple(writers), norms, next((fault for fault in faults if fault), None))


def _fault(moved: Observed, base: Observed, change: torch.Tensor, readers: set[str]) -> str | None:
    """What a change of the stream reaches otherwise than as a multiple of itself."""
    for name in base.inputs:
        if same(moved, base, name):
            continue
        if name not in readers:
            return f"{name} reads the residual stream without a norm of its own"
        if not is_multiple(moved.inputs[name] - base.inputs[name], change):
            return f"{name} does not read the residual stream as it is"
    return (
        None if is_multiple(moved.output - base.output, change) else "the block mixes channels of its residual stream"
    )


def is_multiple(found: torch.Tensor, change: torch.Tensor) -> bool:
    """Whether differences [..., K] are one multiple of ``change`` [K]."""
    factor = (found * change).sum() / (found.numel() / len(change) * change.square().sum())
    return close(found, (factor * change).expand_as(found))

"""A model folder seen through a rotation of its residual stream: the same function, other weights.

QuaRot (arXiv:2404.00456, section 4, stage 1): norm gains go into the layers behind them, what reads the stream
becomes W Q, what writes it Q^T W, embeddings E Q. Tensors are computed when they are asked for, so that a model
still streams. Norms that take the mean off (LayerNorm) commute with a Q that keeps the all-ones direction
(rotation.py): SliceGPT (arXiv:2401.15024) folds the mean into weights instead, which takes another architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from quantrecipe.errors import BackendError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton, is_transposed
from quantrecipe.plugins.native.transforms.norms import NormFacts
from quantrecipe.plugins.native.transforms.outside import Outside, outside
from quantrecipe.plugins.native.transforms.probe import probes
from quantrecipe.plugins.native.transforms.rotation import Rotation, make_rotation
from quantrecipe.plugins.native.transforms.wiring import wirings

#: Rows of a matrix that are rotated at a time.
SLICE = 4096

Change = Callable[[torch.Tensor], torch.Tensor]


class RotatedFolder(ModelFolder):
    """The tensors of ``base`` with those in ``changes`` (by stored name) computed from what they were, in fp32.

    added: tensors that were not stored, by name: the stored one that each begins as (an untied head).
    """

    def __init__(self, base: ModelFolder, changes: dict[str, list[Change]], added: dict[str, str]) -> None:
        tensors = {name: base.info(name) for name in base.names}
        tensors |= {name: replace(base.info(source), name=name) for name, source in added.items()}
        config = {**base.config, "tie_word_embeddings": False} if added else base.config
        super().__init__(base.path, config, tensors)
        self.changes, self._base, self._added = changes, base, added

    def is_verbatim(self, name: str) -> bool:
        """Whether the rotation leaves it alone."""
        return name not in self.changes

    def tensor(self, name: str) -> torch.Tensor:
        """As it is in the rotated model, in the dtype that it is stored in."""
        tensor = self._base.tensor(self._added.get(name, name))
        if name not in self.changes:
            return tensor
        work = tensor.float()
        for change in self.changes[name]:
            work = change(work)
        return work.to(tensor.dtype)

    def mapped(self, name: str) -> torch.Tensor:
        """As ``tensor``: what is computed lies in no file."""
        return self.tensor(name)

    def row(self, name: str, index: int) -> torch.Tensor:
        """One entry along the first dimension."""
        return self.tensor(name)[index]


def rotated(skeleton: Skeleton, seed: int) -> RotatedFolder:
    """The skeleton's folder, rotated. Raises BackendError with the reason where the stream cannot be."""
    first = probes(skeleton.model)[0]
    tuples = isinstance(first.answer({}, first.x, {}), tuple)
    ends = outside(skeleton.model, skeleton.head, tuples)
    wired = wirings(skeleton.model)
    fault = ends.fault or next((one.residual.fault for one in wired if one.residual.fault), None)
    if fault or ends.facts is None:
        raise BackendError(
            "transform 'hadamard' cannot rotate this model", limit=fault, remedy="leave it out of transforms"
        )
    facts = {name: found for probe in probes(skeleton.model) for name, found in probe.norms.items()}
    centered = ends.facts.centered or any(facts[norm].centered for one in wired for norm in one.residual.readers)
    draft = _Draft(skeleton, make_rotation(first.x.shape[-1], centered, seed))
    draft.ends(ends)
    for block, one in zip(skeleton.blocks, wired, strict=True):
        for norm, targets in one.residual.readers.items():
            draft.read(f"{block.name}.{norm}", facts[norm], [f"{block.name}.{target}" for target in targets])
        for writer in one.residual.writers:
            draft.write(f"{block.name}.{writer}")
    return RotatedFolder(skeleton.folder, draft.changes, draft.added)


class _Draft:
    """What becomes of each stored tensor."""

    def __init__(self, skeleton: Skeleton, rotation: Rotation) -> None:
        self.skeleton, self.rotation = skeleton, rotation
        self.changes: dict[str, list[Change]] = {}
        self.added: dict[str, str] = {}

    def ends(self, ends: Outside) -> None:
        """Embeddings, the last norm and the head, which is untied."""
        assert ends.facts is not None
        for table in ends.embeddings:
            self._change(f"{table}.weight", self._in_slices)
        parameter = f"{ends.head}.weight"
        stored = self.skeleton.stored_name(parameter)
        if any(info.is_head and info.is_tied for info in self.skeleton.linears()):
            self.added[parameter] = stored
        self.read(ends.norm, ends.facts, [ends.head])

    def read(self, norm: str, facts: NormFacts, targets: list[str]) -> None:
        """A norm's gain (and bias, where all behind it have one) goes into the layers behind it, which read x Q."""
        gain = self._gain(norm, facts)
        folds_bias = facts.has_bias and all(self._has(f"{target}.bias") for target in targets)
        for target in targets:
            if folds_bias:
                self._change(f"{target}.bias", self._add_product(target, norm))
            self._change(f"{target}.weight", self._rows_first(target, lambda W: self._in_slices(W * gain())))
        self._change(f"{norm}.weight", lambda w: torch.full_like(w, 1 - facts.offset))
        if facts.has_bias:
            bias = torch.zeros_like if folds_bias else (lambda b: self.rotation.right(_divided(b, gain(), norm)))
            self._change(f"{norm}.bias", bias)

    def write(self, name: str) -> None:
        """A layer whose output is added to the stream gives y Q."""
        self._change(f"{name}.weight", self._rows_first(name, self.rotation.left))
        if self._has(f"{name}.bias"):
            self._change(f"{name}.bias", self.rotation.right)

    def _change(self, parameter: str, change: Change) -> None:
        name = parameter if parameter in self.added else self.skeleton.stored_name(parameter)
        self.changes.setdefault(name, []).append(change)

    def _has(self, parameter: str) -> bool:
        owner, _, attribute = parameter.rpartition(".")
        return self.skeleton.model.get_submodule(owner)._parameters.get(attribute) is not None

    def _gain(self, norm: str, facts: NormFacts) -> Callable[[], torch.Tensor]:
        return lambda: self.skeleton.read(f"{norm}.weight").float() + facts.offset

    def _add_product(self, target: str, norm: str) -> Change:
        """c -> c + W b with the W that the layer had."""

        def add(c: torch.Tensor) -> torch.Tensor:
            W = self.skeleton.read(f"{target}.weight").float()
            W = W.t() if self._is_transposed(target) else W
            return c + W @ self.skeleton.read(f"{norm}.bias").float()

        return add

    def _rows_first(self, name: str, change: Change) -> Change:
        """The same change for a layer that stores [K, N]."""
        return (lambda W: change(W.t()).t().contiguous()) if self._is_transposed(name) else change

    def _is_transposed(self, name: str) -> bool:
        return is_transposed(self.skeleton.model.get_submodule(name))

    def _in_slices(self, W: torch.Tensor) -> torch.Tensor:
        for first in range(0, len(W), SLICE):
            W[first : first + SLICE] = self.rotation.right(W[first : first + SLICE])
        return W


def _divided(bias: torch.Tensor, gain: torch.Tensor, norm: str) -> torch.Tensor:
    """b / g, which the norm adds in front of layers without a bias of their own."""
    if bool(((gain == 0) & (bias != 0)).any()):
        raise BackendError(
            "transform 'hadamard' cannot rotate this model",
            limit=f"{norm} has channels with a gain of 0 and a bias, and no bias behind it to fold that into",
        )
    return torch.where(gain == 0, 0.0, bias / gain)

"""One pass over the model, block by block: the cheap errors of every layer, and variants of the model on their way.

All scenarios (scenarios.py) flow through the blocks side by side; behind the last block their logits give KL
against the original. What is kept between two blocks lies in one file (streams.py), so memory grows neither with
depth nor with the scenarios, and a killed run goes on at the block it was in.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from quantrecipe.mixed.measures.divergence import divergences
from quantrecipe.mixed.measures.errors import Row, Solver, Squares
from quantrecipe.mixed.measures.scenarios import CALIBRATION, CLEAN, Passing, Scenario, changed, source_of
from quantrecipe.mixed.measures.streams import Streams, held
from quantrecipe.mixed.options import Option
from quantrecipe.modeling import files
from quantrecipe.modeling.folder import ModelFolder, sha256_file
from quantrecipe.modeling.heap import give_back
from quantrecipe.modeling.journal import Journal
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream, compute_dtype
from quantrecipe.plugins.contract import Progress
from quantrecipe.plugins.native.formats import format_named
from quantrecipe.plugins.native.linear import columns_of
from quantrecipe.plugins.native.run import BATCH_TOKENS
from quantrecipe.plugins.native.walk import Run, walk_block
from quantrecipe.runner.scorers import batch_size


@dataclass(frozen=True, slots=True)
class Order:
    """What to survey.

    options: those of each layer. calibration: int64 [sequences, tokens], the Hessians' text. probe: int64 [windows,
    length], the text of KL. solved: the options of each layer that are made by their own method, under full Hessians;
    all others are rounded to nearest. step: from one position whose KL is looked at to the next.
    """

    folder: Path
    options: Mapping[str, Collection[Option]]
    scenarios: tuple[Scenario, ...]
    calibration: torch.Tensor
    probe: torch.Tensor
    solved: Mapping[str, Collection[Option]] = field(default_factory=dict)
    step: int = 1
    device: str = "cpu"
    trust_remote_code: bool = False


@torch.inference_mode()
def survey(order: Order, scratch: Path, progress: Progress) -> tuple[list[Row], float]:
    """All figures: of layers (errors.py), and ``block`` and ``kl`` of scenarios (their name in place of a layer).

    block: mean squared output error of the first block that the scenario changes, against the mean square of what
    that block adds to its input. kl: nats a token. Beside them the seconds that all runs have taken together.
    """
    run = _Survey(order, scratch, progress)
    try:
        rows = run.carry_out()
        return rows, sum(float(line.get("seconds", 0.0)) for line in run.journal.lines)
    finally:
        run.journal.close()


class _Survey:
    """One survey under way."""

    def __init__(self, order: Order, scratch: Path, progress: Progress) -> None:
        self.order, self.scratch, self.progress = order, scratch, progress
        self.skeleton = Skeleton(ModelFolder.open(order.folder), order.trust_remote_code)
        self.dtype = compute_dtype(self.skeleton.dtype, order.device)
        odd = any(not one.is_plain for one in self.skeleton.linears() if one.name in order.options)
        self.storage = format_named("auto", odd).storage(self.skeleton.dtype, self.dtype)
        self.calibration = self._stream(order.calibration, max(1, BATCH_TOKENS // order.calibration.shape[1]))
        self.probe = self._stream(order.probe, batch_size(order.probe.shape[1]))
        self.journal = Journal(scratch)

    def carry_out(self) -> list[Row]:
        """Blocks in order, then what lies outside them."""
        count = len(self.skeleton.blocks)
        if self.journal.last("end") is None:
            start, streams = self._begin()
            self.progress.start("measure", count, "blocks")
            self.progress.advance(start)
            for index in range(start, count):
                streams = self._block(index, streams)
                self.progress.advance(1, block=self.skeleton.blocks[index].name)
            self._end(streams)
        return [Row(*row) for line in self.journal.lines for row in line.get("rows", ())]

    def _stream(self, tokens: torch.Tensor, size: int) -> Stream:
        return Stream(self.skeleton, tokens, size, self.dtype, self.order.device)

    def _begin(self) -> tuple[int, Streams]:
        """Where to go on, and what enters that block."""
        entered = {CALIBRATION: self.calibration.enter(), CLEAN: self.probe.enter(loaded=True)}
        last = self.journal.last("block")
        if last is not None:
            path = self.scratch / last["file"]
            if path.is_file() and sha256_file(path) == last["digest"]:
                return last["place"], Streams(path, self.order.device)
            self.journal.close()
            files.remove(self.journal.path)
            self.journal = Journal(self.scratch)
        pieces = [piece for name, batches in entered.items() for piece in held(name, batches)]
        return 0, Streams.write(self.scratch, 0, pieces, self.order.device)[0]

    def _block(self, index: int, before: Streams) -> Streams:
        """Measure one block's layers, send every stream through it, and journal both."""
        began = time.perf_counter()
        block = self.skeleton.blocks[index]
        self.skeleton.materialize(block.name, self.dtype, self.order.device)
        solver = self._solver([name for name in self.order.options if name.startswith(f"{block.name}.")])
        outputs = self._look(index, solver, before.batches(CALIBRATION))
        passing = Passing(
            partial(self.probe.call, index), before, self.skeleton.model, solver.weights, self.order.scenarios
        )
        pieces = [*held(CALIBRATION, outputs), *passing.pieces()]
        after, digest = Streams.write(self.scratch, index + 1, pieces, self.order.device)
        del outputs, pieces
        self.skeleton.release(block.name)
        give_back()
        rows = [*solver.rows, *passing.rows()]
        entry = {"place": index + 1, "file": after.path.name, "digest": digest}
        self.journal.add("block", rows=rows, seconds=time.perf_counter() - began, **entry)
        files.remove(before.path)
        return after

    def _solver(self, names: list[str]) -> Solver:
        modules = {name: self.skeleton.model.get_submodule(name) for name in names}
        wanted = {
            (name, option) for one in self.order.scenarios for name, option in one.assigned.items() if name in modules
        }
        options = {name: self.order.options[name] for name in names}
        solved = {(name, option) for name in names for option in self.order.solved.get(name, ())}
        return Solver(
            modules, options, solved, wanted, self.storage, self.order.calibration.numel(), self.progress.note
        )

    def _look(self, index: int, solver: Solver, hidden: list[torch.Tensor]) -> list[torch.Tensor]:
        """The cheap errors of a block's layers on the original's inputs; what the block makes of these."""
        run: Run = partial(self.calibration.call, index)
        if self.order.solved:
            return walk_block(run, hidden, solver.modules, solver.look, True)
        return _look_at_squares(run, hidden, solver)

    def _end(self, streams: Streams) -> None:
        """Layers outside the blocks, and KL of every scenario."""
        began = time.perf_counter()
        inside = tuple(f"{block.name}." for block in self.skeleton.blocks)
        solver = self._solver([name for name in self.order.options if not name.startswith(inside)])
        for name in solver.modules:
            solver.look(name, None)
        found = self._divergences(streams, solver)
        rows = [*solver.rows, *(Row("kl", name, "", sum(kl) / len(kl)) for name, kl in found.items())]
        windows = {name: list(kl) for name, kl in found.items()}
        self.journal.add("end", rows=rows, windows=windows, seconds=time.perf_counter() - began)
        files.remove(streams.path)

    def _divergences(self, streams: Streams, solver: Solver) -> Mapping[str, list[float]]:
        begun = streams.names()
        assigned = {one.name: one.assigned for one in self.order.scenarios}
        parents = {one.name: one.parent for one in self.order.scenarios}

        def logits(name: str, batch: int, part: slice) -> torch.Tensor:
            hidden = streams.batch(source_of(name, begun, parents), batch, part)
            tokens = self.probe.batches[batch][:, part]
            with changed(self.skeleton.model, assigned.get(name, {}), solver.weights):
                return self.probe.logits(tokens, hidden)

        vocabulary = int(self.skeleton.model.config.get_text_config().vocab_size)
        self.progress.start("compare", len(assigned), "variants")
        return divergences(logits, CLEAN, assigned, self.probe.batches, (vocabulary, self.order.step))


def _look_at_squares(run: Run, hidden: list[torch.Tensor], solver: Solver) -> list[torch.Tensor]:
    """As ``walk_block`` with nothing but the Hessians' diagonals."""
    found = {name: Squares(columns_of(one), next(one.parameters()).device) for name, one in solver.modules.items()}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, squares=found[name]: squares.add(args[0]), prepend=True)
        for name, module in solver.modules.items()
    ]
    try:
        outputs = [run(batch) for batch in hidden]
    finally:
        for hook in hooks:
            hook.remove()
    for name, squares in found.items():
        solver.look(name, squares)
    return outputs

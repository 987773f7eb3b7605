"""The answer to a question: measured, solved, verified and refined."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from quantrecipe.mixed.compose import Evidence, recipe_of
from quantrecipe.mixed.correlate import correlations
from quantrecipe.mixed.knapsack import Choice
from quantrecipe.mixed.measure import HELD_BACK, make_order, measure_losses
from quantrecipe.mixed.measures.losses import Effort
from quantrecipe.mixed.measures.survey import Order
from quantrecipe.mixed.mix import MixMeter
from quantrecipe.mixed.question import Question
from quantrecipe.mixed.refine import ROUNDS, Refined, Trial, refine
from quantrecipe.mixed.slopes import Space
from quantrecipe.mixed.solve import Losses, Mix, frontier_of, solve
from quantrecipe.mixed.table import LossTable
from quantrecipe.mixed.verified import verified_lines
from quantrecipe.plugins.contract import Progress
from quantrecipe.recipe import Calibration
from quantrecipe.runner.calibration import CalibrationTokens, calibration_tokens
from quantrecipe.runner.preflight import position_limit
from quantrecipe.runner.tokens import load_tokenizer
from quantrecipe.user_cache import cache_folder


@dataclass(frozen=True, slots=True)
class Answer:
    """A mix and what it rests on."""

    question: Question
    mix: Mix
    evidence: Evidence

    def recipe(self) -> dict[str, Any]:
        """As data; empty where nothing is quantized."""
        if all(one.keeps for one in self.mix.chosen.values()):
            return {}
        return recipe_of(self.question, self.mix, self.evidence)

    def frontier(self, points: int) -> list[Mix]:
        """Optimal mixes over the whole range of sizes."""
        return frontier_of(self.question, self.evidence.losses, points)


def answer(question: Question, calibration: Calibration, effort: Effort, progress: Progress) -> Answer:
    """Measure the losses, choose, measure what was chosen and move it while that pays (``low`` does not)."""
    tokenizer = load_tokenizer(question.path, question.trust_remote_code)
    text = calibration_tokens(calibration, tokenizer, position_limit(question.skeleton))
    with _kept() as home:
        lab = _Lab(question, text.tokens, effort, home, progress)
        meter = lab.meter()  # its identity holds the threads, whose number the first compiled loop changes
        table = lab.table()
        losses = table.losses()
        mix = solve(question, losses)
        evidence = Evidence(losses, calibration, _source(text, effort), correlations=correlations(table))
        if effort == "low" or all(one.keeps for one in mix.chosen.values()):
            return Answer(question, mix, evidence)
        refined = lab.refined(mix, losses, meter)
    best = replace(mix, chosen=dict(refined.best.mix), choice=_choice_of(question, mix, refined.best))
    return Answer(question, best, replace(evidence, verified=verified_lines(refined, lab.held)))


@dataclass(frozen=True, slots=True)
class _Lab:
    """What measures. tokens: int64 [sequences, length], the calibration text."""

    question: Question
    tokens: torch.Tensor
    effort: Effort
    home: Path
    progress: Progress

    @property
    def held(self) -> torch.Tensor:
        """The sequences that no Hessian sees, on which mixes are measured."""
        held = self.tokens[HELD_BACK - 1 :: HELD_BACK]
        return held if len(held) else self.tokens[-1:]

    def table(self) -> LossTable:
        """Of each unit under each of its options, alone."""
        asked = self.question
        return measure_losses(
            asked.path, asked.units, asked.options, self.tokens, self.effort, self.home, self.progress,
            trust_remote_code=asked.trust_remote_code,
        )  # fmt: skip

    def meter(self) -> MixMeter:
        """Measures mixes."""
        asked = self.question
        return MixMeter(
            asked.path, asked.units, self.order().calibration, self.held, self.home, self.progress, asked.form
        )  # fmt: skip

    def order(self) -> Order:
        """Model, texts and scenarios."""
        asked = self.question
        return make_order(
            asked.path, asked.units, asked.options, self.tokens, self.effort,
            trust_remote_code=asked.trust_remote_code,
        )  # fmt: skip

    def refined(self, mix: Mix, losses: Losses, meter: MixMeter) -> Refined:
        """The mix measured and moved, within the bytes that the KV cache leaves."""
        asked = self.question
        space = Space(asked.units, asked.options, losses, asked.unit_bytes())
        room = asked.room - (mix.cache.nbytes if mix.cache else 0)
        return refine(space, room, mix.chosen, meter, self.order(), ROUNDS[self.effort], self.progress)


def _choice_of(question: Question, mix: Mix, best: Trial) -> Choice:
    """The refined mix as a choice; the bound stays that of the losses as they were measured alone."""
    picks = tuple(question.options[unit.name].index(best.mix[unit.name]) for unit in question.units)
    sizes = question.unit_bytes()
    size = sum(sizes[unit.name, str(best.mix[unit.name])] for unit in question.units)
    cache = mix.choice.picks[len(picks) :]
    extra = mix.cache.nbytes if mix.cache else 0
    loss = best.predicted + (mix.cache.loss if mix.cache else 0.0)
    return mix.choice._replace(picks=(*picks, *cache), loss=loss, size=size + extra)


def _source(text: CalibrationTokens, effort: Effort) -> str:
    samples, length = text.tokens.shape
    return f"{samples} x {length} tokens of {text.dataset}, effort {effort}"


@contextmanager
def _kept() -> Iterator[Path]:
    """The folder where measurements outlive the command, or one that does not where the cache is off."""
    home = cache_folder()
    if home is not None:
        yield home / "mixed"
        return
    with tempfile.TemporaryDirectory(prefix="quantrecipe-") as folder:
        yield Path(folder)

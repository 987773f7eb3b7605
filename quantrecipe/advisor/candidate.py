"""One candidate with everything known of it, and the order among candidates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from quantrecipe.advisor.backend import installed
from quantrecipe.advisor.candidates import Way
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.engine import speed_class
from quantrecipe.memory import MemoryEstimate, Verdict
from quantrecipe.model import ModelSpec
from quantrecipe.rules.judgement import Judgement

if TYPE_CHECKING:
    from quantrecipe.rules.prediction import Prediction

TIE = 0.005  # of perplexity
TIE_PROBABILITY = 0.6
TIE_DEVIATIONS = 0.253  # where a normal's probability is 0.6: for siblings, whose errors are taken as their own
_EFFORT = {"rtn": 0, "nf4": 0, "gptq": 1, "awq": 1, "smoothquant": 1}


Kind = Literal["rule", "engine", "memory", "backend", "limit", "evidence", "choice"]


class Objection(NamedTuple):
    """Why a candidate was not taken: what kind of reason, and the reason in words."""

    kind: Kind
    text: str


@dataclass(slots=True)
class Candidate:
    """A way to quantize a model, its memory, what the rules say, and why it was rejected, if it was.

    offset: how much worse the unquantized model is than the best of those it is compared with, in nats a token of
    the tokenizer that all are counted in; 0 where only one model is considered. rate: its own tokens over those.
    """

    model: ModelSpec
    way: Way
    kv_bits: int
    kv_type: str
    memory: MemoryEstimate
    judgement: Judgement
    backend: str | None
    verdict: Verdict
    prediction: Prediction | None = None
    rejected: list[Objection] = field(default_factory=list)
    offset: float = 0.0
    rate: float = 1.0
    loss: float = math.inf
    score: float = math.inf

    def predicted(self, guess: Prediction) -> None:
        """Takes a prediction in: ``loss``, the relative increase of perplexity, and ``score``, absolute quality.

        The score is log perplexity above the family's best unquantized member; lower is better.
        """
        self.prediction, self.loss = guess, guess.relative_increase
        self.score = self.offset + self.rate * math.log1p(self.loss)

    def lacks_only(self, *kinds: Kind) -> bool:
        """Whether something speaks against it, and nothing but reasons of these kinds."""
        return bool(self.rejected) and all(said.kind in kinds for said in self.rejected)

    @property
    def label(self) -> str:
        """Scheme, method and KV bits in a few words."""
        embedding = f", {self.way.embedding_bits}-bit embedding" if self.way.embedding_bits < 16 else ""
        kv = f", {self.kv_bits}-bit KV" if self.kv_bits < 16 else ""
        return f"{self.way.scheme.name} {self.way.method}{embedding}{kv}"


def ties(one: Candidate, best: Candidate) -> bool:
    """Whether two candidates differ by less than the evidence can tell."""
    if one.score - best.score < TIE:
        return True
    if not (one.prediction and best.prediction):
        return False
    if one.model is best.model:
        return best.prediction.probability_better(one.prediction) < TIE_PROBABILITY
    return (one.score - best.score) / max(math.hypot(_spread(one), _spread(best)), 1e-9) < TIE_DEVIATIONS


def _spread(one: Candidate) -> float:
    """Standard deviation of the score: the 80 % interval of a normal is 2.56 of them wide."""
    guess = one.prediction
    return one.rate * (math.log1p(guess.high) - math.log1p(guess.low)) / 2.56 if guess else math.inf


def tie_key(one: Candidate, asked: Constraints) -> tuple[float, ...]:
    """Within a tie: the faster, then what fits for sure, the simpler, what rules prefer, the smaller."""
    speed = speed_class(asked.program, one.way, asked.batch)
    missing = one.backend not in installed()
    return (_aside(one, asked), speed, one.verdict == "edge", missing, effort(one), -one.judgement.weight,
            one.memory.total_bytes)  # fmt: skip


def _aside(one: Candidate, asked: Constraints) -> bool:
    """Whether weights must stay in host memory, which costs more speed than anything else."""
    return one.memory.spare(asked.memory) < 0


def effort(one: Candidate) -> int:
    """How much a candidate asks for beyond rounding: calibration, a quantized cache, an unusual grid.

    Symmetric grids are the plain ones, save at 3 bits and below, where published results are asymmetric.
    """
    scheme = one.way.scheme
    unusual = scheme.symmetric if scheme.bits <= 3 else not scheme.symmetric
    small = (one.kv_bits < 16) + (one.kv_bits < 8) + (one.way.embedding_bits < 16)
    return _EFFORT.get(one.way.method, 2) + small + unusual + scheme.double_quantized


def by_quality(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Best predicted absolute quality first; equals by memory."""
    return sorted(candidates, key=lambda c: (c.score, c.memory.total_bytes))


def choose(candidates: Sequence[Candidate], asked: Constraints) -> Candidate | None:
    """The recommendation among those that passed every test; None where there are none."""
    if not candidates:
        return None
    if asked.objective != "quality":
        return min(candidates, key=lambda c: _objective_key(c, asked))
    return min(within_a_tie(candidates), key=lambda c: tie_key(c, asked))


def within_a_tie(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other is better than, as far as the evidence can tell.

    A candidate must tie with the best of its own model, and that with the best of all: one whose loss is merely
    uncertain does not pass for a good one because it is compared across models.
    """
    ranked = by_quality(candidates)
    best: dict[str, Candidate] = {}
    for one in ranked:
        best.setdefault(one.model.id, one)
    return [one for one in ranked if ties(best[one.model.id], ranked[0]) and ties(one, best[one.model.id])]


def _objective_key(one: Candidate, asked: Constraints) -> tuple[float, ...]:
    """Smaller first: what the objective asks for, then quality, then memory."""
    speed = speed_class(asked.program, one.way, 16 if asked.objective == "throughput" else asked.batch)
    if asked.objective == "memory":
        return (one.memory.total_bytes, one.score)
    return (_aside(one, asked), speed, one.verdict == "edge", -one.judgement.weight, one.score,
            one.memory.total_bytes)  # fmt: skip

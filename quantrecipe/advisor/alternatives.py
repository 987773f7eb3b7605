"""What else was weighed: the instructive part of it, and the frontier of memory against loss."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantrecipe.advisor.candidate import Candidate, Objection, by_quality, ties
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.units import format_bytes

MOST = 20
_ORDER = (
    "choice",
    "limit",
    "evidence",
    "backend",
    "memory",
    "rule",
    "engine",
)  # the nearer to the answer, the earlier


def pick_alternatives(
    candidates: Iterable[Candidate], chosen: Candidate | None, asked: Constraints
) -> list[Candidate]:
    """One candidate a scheme and method, with why it was not taken: first the best of each kind of scheme."""
    found = list(_best_of_each(candidates, chosen).values())
    for one in found:
        if not one.rejected:
            one.rejected.append(Objection("choice", _why_not(one, chosen, asked)))
    ranked = sorted(found, key=lambda one: _rank(one, chosen, asked))
    return _varied(ranked, chosen)[:MOST]


def _rank(one: Candidate, chosen: Candidate | None, asked: Constraints) -> tuple[float, ...]:
    """The same scheme by other methods first, then what the objective is about, then how near it came."""
    same = chosen is not None and one.model is chosen.model and one.way.scheme == chosen.way.scheme
    about = asked.objective == "throughput" and one.way.scheme.act_bits < 16 and one.rejected[0].kind != "engine"
    return (not same, not about, _ORDER.index(one.rejected[0].kind), one.score)


def _best_of_each(candidates: Iterable[Candidate], chosen: Candidate | None) -> dict[tuple[str, str, str], Candidate]:
    """The best candidate, or the least rejected, of each model, scheme and method other than the chosen one."""
    best: dict[tuple[str, str, str], Candidate] = {}
    for one in by_quality(candidates):
        if chosen and one.model is chosen.model and one.way == chosen.way:
            continue  # the same with another KV cache: the warnings tell of it
        key = (one.model.id, one.way.scheme.name, f"{one.way.method} {one.way.embedding_bits}")
        if key not in best or len(one.rejected) < len(best[key].rejected):
            best[key] = one
    return best


def _varied(ranked: Sequence[Candidate], chosen: Candidate | None) -> list[Candidate]:
    """The same order, but the first of each kind before the second of any."""
    seen: dict[tuple[object, ...], int] = {}
    turns: list[tuple[int, int, Candidate]] = []
    for one in ranked:
        kind = _kind(one, chosen)
        seen[kind] = seen.get(kind, -1) + 1
        turns.append((seen[kind], len(turns), one))
    return [one for _, _, one in sorted(turns, key=lambda turn: turn[:2])]


def _kind(one: Candidate, chosen: Candidate | None) -> tuple[object, ...]:
    """Schemes that teach the same: of one width and type; the methods of the chosen scheme and of W8A8 apart."""
    scheme = one.way.scheme
    only_method = chosen is not None and one.model is chosen.model and scheme == chosen.way.scheme
    told = one.rejected[0].kind if one.rejected[0].kind in ("rule", "backend") else ""
    method = one.way.method if only_method or scheme.bits == scheme.act_bits else ""
    return (one.model.id, scheme.bits, scheme.act_bits, scheme.type, bool(scheme.act_group), method, told)


def _why_not(one: Candidate, chosen: Candidate | None, asked: Constraints) -> str:
    """Why a candidate that passed every test was not taken."""
    if chosen is None:
        return "not considered"
    if asked.objective == "memory":
        return f"needs more memory: {format_bytes(one.memory.total_bytes)}"
    if asked.objective != "quality":
        return f"not better for {asked.objective}"
    if ties(one, chosen) or one.score <= chosen.score:
        return "a tie: the other is faster, simpler or smaller"
    if one.model is not chosen.model:
        return f"predicted worse by {one.score - chosen.score:.1%} in absolute perplexity"
    return "predicted worse"


def frontier(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates that can be made and served and that none beats in both memory and loss; smallest first."""
    able = [one for one in candidates if not one.rejected or one.lacks_only("memory", "limit", "choice")]
    found: list[Candidate] = []
    for one in sorted(able, key=lambda c: (c.memory.total_bytes, c.score)):
        if not found or one.score < found[-1].score - 1e-4:
            found.append(one)
    return found

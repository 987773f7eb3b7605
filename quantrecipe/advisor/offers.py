"""What to change where nothing fits, ranked, each with its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantrecipe.advisor.advice import Offer
from quantrecipe.advisor.assess import assess
from quantrecipe.advisor.candidate import Candidate, by_quality
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.hints import longest_context
from quantrecipe.catalog import lookup
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import RuleSet
from quantrecipe.units import format_bytes

MOST_DEVICES = 64
USEFUL = 0.15  # predicted loss over which a candidate is offered only for want of others
SHORTEST = 256  # tokens: a shorter context is no offer


def counter_offers(
    models: Sequence[ModelSpec], candidates: Sequence[Candidate], asked: Constraints, rules: RuleSet
) -> list[Offer]:
    """Shorter context, more devices, more memory, a smaller sibling: the least change first."""
    short = [one for one in candidates if _only_memory(one)]
    if not short:
        return list(_relax(candidates))
    useful = [one for one in short if one.loss < USEFUL] or short
    smallest = min(useful, key=lambda one: one.memory.total_bytes)
    return [
        *_context(smallest, asked), *_memory(smallest), *_devices(smallest, short, asked),
        *_offload(smallest, asked), *_sibling(models[0], asked, rules),
    ]  # fmt: skip


def _only_memory(one: Candidate) -> bool:
    return one.lacks_only("memory")


def _relax(candidates: Sequence[Candidate]) -> Iterator[Offer]:
    """Where no candidate lacks only memory: the best that breaks the limit of loss, or that another tool can make."""
    over = [one for one in candidates if one.lacks_only("limit")]
    for one in by_quality(over)[:1]:
        yield Offer(f"allow more loss: {one.rejected[0].text}", one.label, one.memory.total_bytes)
    for one in by_quality(one for one in candidates if one.lacks_only("backend"))[:1]:
        change = f"make it with another tool, as {one.way.format}: {one.rejected[0].text}"
        yield Offer(change, one.label, one.memory.total_bytes)


def _context(smallest: Candidate, asked: Constraints) -> Iterator[Offer]:
    longest = longest_context(smallest, asked, smallest.kv_bits)
    if longest >= SHORTEST:
        yield Offer(f"shorten the context to {longest:,} tokens", smallest.label, asked.memory)


def _memory(smallest: Candidate) -> Iterator[Offer]:
    need = smallest.memory.total_bytes
    yield Offer(f"have {format_bytes(need)} of memory", smallest.label, need)


def _devices(smallest: Candidate, short: Sequence[Candidate], asked: Constraints) -> Iterator[Offer]:
    """The fewest devices of this size that hold the smallest candidate, and those that hold the best."""
    each = asked.memory // asked.gpus
    best = by_quality(short)[0]
    for label, one in (("", smallest), (" for the best quality", best)):
        count = _count(one, each)
        if count and not (one is best and best is smallest and label):
            yield Offer(f"use {count} devices of {format_bytes(each)}{label}", one.label, one.memory.total_bytes)


def _count(one: Candidate, each: int) -> int | None:
    """Devices needed: each pays its own overhead."""
    overhead = one.memory.overhead_bytes // one.memory.gpus
    room = each - overhead
    need = one.memory.total_bytes - one.memory.overhead_bytes
    count = -(-need // room) if room > 0 else MOST_DEVICES + 1
    return count if count <= MOST_DEVICES else None


def _offload(smallest: Candidate, asked: Constraints) -> Iterator[Offer]:
    """Weights that stay in host memory: slow, since they cross the bus for every token."""
    missing = smallest.memory.total_bytes - asked.memory
    if 0 < missing < smallest.memory.weights_bytes // 2:
        change = (
            f"keep {format_bytes(missing)} of weights in host memory, --offload (slow: they cross the bus each token)"
        )
        yield Offer(change, smallest.label, smallest.memory.total_bytes)


def _sibling(model: ModelSpec, asked: Constraints, rules: RuleSet) -> Iterator[Offer]:
    """The largest smaller member of the family that fits."""
    if model.family not in lookup.families():
        return
    smaller = [one for one in lookup.find_family(model.family) if one.parameters < model.parameters]
    for sibling in reversed(smaller):
        fitting = by_quality(one for one in assess(sibling, asked, rules, able_only=True) if not one.rejected)
        if fitting:
            yield Offer(f"take {sibling.id}", fitting[0].label, fitting[0].memory.total_bytes)
            return

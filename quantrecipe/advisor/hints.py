"""What a person who knows would add to a recommendation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from quantrecipe.advisor.assess import loaded
from quantrecipe.advisor.candidate import TIE, Candidate
from quantrecipe.advisor.constraints import UNLIMITED, Constraints
from quantrecipe.advisor.hints_serving import serving_hints
from quantrecipe.advisor.launch import device_share
from quantrecipe.advisor.search import largest
from quantrecipe.advisor.tables import devices
from quantrecipe.memory import combine, estimate
from quantrecipe.scheme_facts import scheme_facts
from quantrecipe.storage import KEEPS_TIED_TWICE
from quantrecipe.units import format_bytes

SETTINGS, LARGE_BATCH = "zeroquant-v2/setting-", 16
GREAT_EMBEDDING = 0.05  # share of resident weights from which the embedding is worth a word


def warnings_for(chosen: Candidate, candidates: Iterable[Candidate], asked: Constraints) -> list[str]:
    """Lines to print under the recommendation, the most important first."""
    known = list(candidates)
    return [
        *_edge(chosen, asked), *_conflict(chosen, known), *_no_evidence(chosen), *_low_bits(chosen),
        *_experts(chosen), *_kv(chosen, asked), *_unquantized(chosen, asked), *_next_better(chosen, known, asked),
        *_embedding(chosen, known, asked), *_real_card(chosen, asked), *_share(chosen, asked),
        *_tied_twice(chosen), *_local(chosen), *_size_class(chosen, known, asked), *serving_hints(chosen, asked),
    ]  # fmt: skip


def _edge(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    if chosen.verdict == "edge":
        memory = chosen.memory
        free = format_bytes(asked.memory - memory.total_bytes)
        yield (
            f"edge: {free} to spare, less than the {format_bytes(memory.uncertainty_bytes)} that activations, "
            "allocator and device context may add; measure before you rely on it"
        )


def _conflict(chosen: Candidate, known: list[Candidate]) -> Iterator[str]:
    """Published numbers for a neighbouring scheme that contradict each other."""
    way = chosen.way
    near = (c for c in known if c.model is chosen.model and c.way.method == way.method)
    noted = {
        rule.id: rule
        for one in near
        if one.way.scheme.bits == way.scheme.bits
        for rule in one.judgement.with_outcome("noted")
        if rule.id.endswith("-conflict")
    }
    yield from (f"sources conflict: {rule.finding} ({rule.source})" for rule in noted.values())


def _no_evidence(chosen: Candidate) -> Iterator[str]:
    if chosen.prediction is None or chosen.prediction.support == 0:
        where = f"{chosen.model.id} at {chosen.way.scheme.name}"
        yield f"no evidence near {where}: the predicted loss is a guess; measure it"


def _low_bits(chosen: Candidate) -> Iterator[str]:
    if chosen.way.scheme.bits < 3 or chosen.loss > 1:
        yield "so few bits hurt more than perplexity says: compare top-1 agreement and answers before you use it"


def _experts(chosen: Candidate) -> Iterator[str]:
    if chosen.model.is_moe and not chosen.way.scheme.symmetric:
        yield "experts with zero points load in neither transformers nor vLLM (compressed-tensors): symmetric ones do"


def _kv(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    """How far 16-bit keys and values would go."""
    if chosen.kv_bits == 16 or asked.memory >= UNLIMITED:
        return
    context = longest_context(chosen, asked, 16)
    if context:
        yield f"with a 16-bit KV cache the same weights fit up to {context:,} tokens of context"
    else:
        yield "a 16-bit KV cache does not fit at any context"


def longest_context(one: Candidate, asked: Constraints, kv_bits: int) -> int:
    """The longest context that the budget holds, in tokens; 0 where there is none."""
    stored = loaded(one.model, one.way, asked)

    def held(context: int) -> bool:
        serving = replace(asked, context=context).serving(kv_bits)
        return combine(one.model, stored, one.way.format, serving).spare(asked.room(stored.resident)) >= 0

    return largest(held, one.model.context)


def _size_class(chosen: Candidate, known: list[Candidate], asked: Constraints) -> Iterator[str]:
    """The survey's setting for models of this size, where inputs matter, and what stands in for it."""
    if chosen.way.scheme.act_bits == 16 and asked.objective != "throughput" and asked.batch < LARGE_BATCH:
        return
    for one in known:
        grouped = one.model is chosen.model and one.way.scheme.act_group
        rules = [r for r in one.judgement.with_outcome("preferred") if r.id.startswith(SETTINGS)] if grouped else []
        refused = next((said.text for said in one.rejected if said.kind == "engine"), None)
        if rules and refused:
            name = one.way.scheme.name
            yield f"the setting of {rules[0].source}, for this size is {name} ({rules[0].id}): {refused}"
            return


def _unquantized(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    plain = estimate(chosen.model, scheme_facts("w16a16"), "compressed-tensors", asked.serving(16))
    verdict = plain.verdict(asked.memory)
    if asked.memory < UNLIMITED and verdict != "does not fit":
        how = "fits too" if verdict == "fits" else "may fit too"
        yield f"the unquantized model {how} ({format_bytes(plain.total_bytes)}): quantize to save memory, not to fit"


def _next_better(chosen: Candidate, known: list[Candidate], asked: Constraints) -> Iterator[str]:
    """What more memory would buy: the next scheme of these bits, and the smallest good one of more bits."""
    able = [c for c in known if c.model is chosen.model and c.lacks_only("memory")]
    better = [c for c in able if c.score < chosen.score - TIE / 2]
    first = [c for c in better if c.way.scheme.bits == chosen.way.scheme.bits]
    more = [c for c in better if c.way.scheme.bits > chosen.way.scheme.bits]
    for group in (first, _near_best(more)):
        for one in sorted(group, key=lambda c: c.memory.total_bytes)[:1]:
            need = format_bytes(one.memory.total_bytes)
            yield f"better: {one.label} needs {need} (loss {one.loss:+.1%}){_devices(one, asked)}"


def _devices(one: Candidate, asked: Constraints) -> str:
    """How many devices of this size hold a candidate, where one more would not be too much to say."""
    count = -(-one.memory.total_bytes * asked.gpus // asked.memory)
    return f": {count} such devices" if count > asked.gpus else ": a little more memory"


def _near_best(found: list[Candidate]) -> list[Candidate]:
    """Those of the fewest bits, as good as its best but for a tie."""
    if not found:
        return []
    fewest = min(c.way.scheme.bits for c in found)
    group = [c for c in found if c.way.scheme.bits == fewest]
    best = min(c.score for c in group)
    return [c for c in group if c.score < best + TIE]


def _embedding(chosen: Candidate, known: list[Candidate], asked: Constraints) -> Iterator[str]:
    """What an engine that keeps the embedding in 8 bits would save, and what would then fit."""
    groups = chosen.memory.groups
    size = groups.get("embeddings", 0) + groups.get("head", 0)
    if size / chosen.memory.weights_bytes < GREAT_EMBEDDING:
        return
    able = [
        c for c in known if c.model is chosen.model and c.lacks_only("memory") and c.score < chosen.score - TIE / 2
    ]
    then = [c for c in able if c.memory.total_bytes - size // 2 <= asked.memory]
    best = min(then, key=lambda c: c.score, default=None)
    total = f" in {format_bytes(best.memory.total_bytes - size / 2)} (loss {best.loss:+.1%})" if best else ""
    gain = f", and {best.label} would fit{total}" if best else ""
    yield (
        f"embeddings and head stay in 16 bits and take {format_bytes(size)}; an engine that holds them in 8 bits "
        f"saves {format_bytes(size / 2)}{gain}"
    )


def _real_card(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    """A number on a box is not what a program finds on the device."""
    if asked.device is not None:
        return
    same = [d for d in devices().values() if d.sold_as and d.sold_as * asked.gpus == asked.memory]
    best = max(same, key=lambda d: d.bandwidth or 0, default=None)
    if best and best.memory:
        program = asked.program
        yield (
            f"a real {best.name} has {format_bytes(best.memory)}, of which {program.name} takes {program.share:g} "
            f"({format_bytes(best.memory * program.share)}) unless told otherwise: --hardware {best.name}"
        )


def _share(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    program = asked.program
    if asked.device and device_share(chosen, asked, program) > program.share:
        yield f"the launch line raises {program.name}'s share of the device above its usual {program.share:g}"


def _tied_twice(chosen: Candidate) -> Iterator[str]:
    if chosen.model.tied and chosen.way.format in KEEPS_TIED_TWICE:
        extra = format_bytes(chosen.memory.file_bytes - chosen.memory.weights_bytes)
        yield f"a {chosen.way.format} file holds the tied head twice: {extra} more on disk than in memory"


def _local(chosen: Candidate) -> Iterator[str]:
    if chosen.model.hub_id is None and chosen.model.id != "demo":
        yield f"the weights of {chosen.model.id} are not on the hub under a known name: set model.id to their folder"

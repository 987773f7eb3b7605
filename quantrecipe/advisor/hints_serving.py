"""What a person who knows would add about serving: the engine, its kernels, its cache, host memory."""

from __future__ import annotations

from collections.abc import Iterator

from quantrecipe.advisor import engine as engines
from quantrecipe.advisor.backend import availability, installed
from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.draft import cache_scales
from quantrecipe.advisor.launch import offloaded
from quantrecipe.advisor.tables import engines as all_engines
from quantrecipe.units import format_bytes


def serving_hints(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    """Lines about the engine and the backend, the most important first."""
    yield from _aside(chosen, asked)
    yield from _expanded(chosen, asked)
    yield from _missing(chosen)
    yield from _cache_scales(chosen, asked)
    yield from _other_release(chosen, asked)
    yield from _kernel(chosen, asked)
    yield from _kin(chosen)


def _aside(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    held = offloaded(chosen, asked)
    if held:
        yield (
            f"{format_bytes(held)} of the weights stay in host memory: they cross the bus for every token, which "
            "costs most of the speed"
        )


def _expanded(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    if chosen.way.format in asked.program.decompresses:
        yield (
            f"{asked.program.name} {asked.program.version} expands {chosen.way.format} weights to 16 bits when it "
            f"runs them: counted so, though the file has {format_bytes(chosen.memory.file_bytes)}"
        )


def _missing(chosen: Candidate) -> Iterator[str]:
    """The backend is known and not installed: how to get it."""
    if chosen.backend and chosen.backend not in installed():
        found = availability(chosen.backend)
        yield f"the {chosen.backend} backend is not installed here: {found.remedy or found.missing}"


def _cache_scales(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    if chosen.kv_bits < 16 and chosen.kv_type == "float" and not cache_scales(chosen, asked.program):
        yield "the checkpoint carries no scales for the fp8 KV cache, so that they stay at 1: check the answers"


def _other_release(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    """Another release of the same engine that was read, and does not load this."""
    for program in all_engines().values():
        if program.name == asked.program.name and program.version != asked.program.version:
            fault = engines.fault(program, chosen.way, chosen.kv_bits)
            if fault:
                yield f"for {asked.program.name} {asked.program.version}: {fault}"


def _kernel(chosen: Candidate, asked: Constraints) -> Iterator[str]:
    program = asked.program
    marlin = chosen.way.scheme.bits in program.fast_bits and chosen.way.scheme.act_bits == 16
    if marlin and program.align and not engines.aligned(program, chosen.model, asked.gpus):
        rows, columns = program.align
        yield (
            f"a device's share of some matrices is no multiple of {rows} rows and {columns} columns: "
            f"{program.name} has a slower kernel than Marlin for them"
        )


def _kin(chosen: Candidate) -> Iterator[str]:
    """Llama 3.1 to 3.3 stand on Llama 3's published results."""
    family = chosen.model.family
    if family.startswith("llama-3.") and chosen.prediction is not None and chosen.prediction.support:
        yield f"the published results near are Llama 3's: nobody in these tables measured {chosen.model.id}"

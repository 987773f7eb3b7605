"""What an engine can load, by its table in engines.yaml; what hardware it needs is for the rules to say."""

from __future__ import annotations

from quantrecipe.advisor.candidates import Way
from quantrecipe.advisor.tables import Engine

CODE_TYPES = {"fp8": "float", "int8": "int"}


def kv_type(engine: Engine, kv_bits: int) -> str:
    """The number type of a cache of that many bits: the first that the engine has."""
    if kv_bits == 16:
        return "none"
    return CODE_TYPES[engine.kv[0]] if engine.kv else "int"


def hardware_fault(engine: Engine, way: Way, architecture: str | None) -> str | None:
    """Why an engine cannot run a candidate on this architecture, beyond what the rules say."""
    if way.scheme.type == "int" and architecture in engine.no_integers:
        return f"{engine.name} {engine.version} lists no integer kernels for {architecture}: FP8 or GGUF there"
    return None


def fault(engine: Engine, way: Way, kv_bits: int) -> str | None:
    """Why an engine cannot serve a candidate; None where it can."""
    scheme, label = way.scheme, f"{engine.name} {engine.version}"
    if kv_bits < 16 and not engine.kv:
        return f"{label} has no {kv_bits}-bit KV cache"
    if scheme.act_group:
        return f"{label} loads no activation groups: per token is the substitute"
    table = engine.formats if scheme.act_bits == 16 else engine.act_formats
    if way.format not in table:
        return f"{label} does not load {scheme.name} in {way.format} format"
    if scheme.bits not in table[way.format]:
        return f"{label} loads {way.format} at {', '.join(map(str, table[way.format]))} bits only"
    if not scheme.symmetric and scheme.bits not in engine.asymmetric.get(way.format, ()):
        return f"{label} takes no zero points at {scheme.bits} bits in {way.format} format"
    return None


def speed_class(engine: Engine, way: Way, batch: int) -> int:
    """0 is fastest. Small batches wait for weights, large ones for arithmetic.

    Widths without a kernel of their own are expanded first, which costs what their size saves
    (engines.yaml: fast_bits; TensorRT-LLM's table of methods by batch for the rest).
    """
    scheme = way.scheme
    if batch >= 16:
        return 0 if scheme.act_bits <= 8 else 1
    if scheme.bits not in engine.fast_bits:
        return 3
    return 0 if scheme.bits <= 4 else 1

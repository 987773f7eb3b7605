"""What an engine can load, by its table in engines.yaml; what hardware it needs is for the rules to say."""

from __future__ import annotations

from quantrecipe.advisor.candidates import Way
from quantrecipe.advisor.tables import Engine
from quantrecipe.model import ModelSpec

CPUS = ("cpu", "arm_cpu")


def kv_type(engine: Engine, kv_bits: int) -> str:
    """The number type of a cache of that many bits."""
    cache = engine.cache(kv_bits)
    return "none" if kv_bits == 16 else cache["type"] if cache else "int"


def hardware_fault(engine: Engine, way: Way, kv_bits: int, architecture: str | None) -> str | None:
    """Why an engine cannot run a candidate on this architecture, beyond what the rules say."""
    cache = engine.cache(kv_bits)
    if cache and cache.get("gpu_only") and architecture in CPUS:
        return f"{engine.name} {engine.version} is not known to hold an {kv_bits}-bit KV cache on a CPU"
    if way.scheme.type != "float" and architecture in engine.no_integers:
        return f"{engine.name} {engine.version} lists no integer kernels for {architecture}: FP8 or GGUF there"
    return None


def fault(engine: Engine, way: Way, kv_bits: int) -> str | None:
    """Why an engine cannot serve a candidate; None where it can."""
    scheme, label = way.scheme, f"{engine.name} {engine.version}"
    if kv_bits < 16 and engine.cache(kv_bits) is None:
        return f"{label} has no {kv_bits}-bit KV cache"
    if scheme.act_group:
        return f"{label} loads no activation groups: per token is the substitute"
    table = engine.formats if scheme.act_bits == 16 else engine.act_formats
    if way.format not in table:
        return f"{label} does not load {scheme.name} in {way.format} format"
    if scheme.bits not in table[way.format]:
        return f"{label} loads {way.format} at {', '.join(map(str, table[way.format]))} bits only"
    groups = engine.groups.get(way.format)
    if groups and scheme.act_bits == 16 and scheme.type == "int" and scheme.group not in groups:
        known = ", ".join(str(size) if size else "a row" for size in groups)
        return f"{label} takes {way.format} in groups of {known}"
    if not scheme.symmetric and scheme.bits not in engine.asymmetric.get(way.format, ()):
        return f"{label} takes no zero points at {scheme.bits} bits in {way.format} format"
    if way.compensation and not engine.adapters:
        return f"{label} loads no low-rank adapter, which {way.compensation} is"
    return None


def aligned(engine: Engine, model: ModelSpec, gpus: int) -> bool:
    """Whether the fast kernel takes every matrix's shard: rows and columns in its multiples."""
    if engine.align is None:
        return True
    rows, columns = engine.align
    parts = 1 if model.kv.kind == "mla" else gpus  # latents are copied to every device, not split
    return all(_shares(m.rows, rows, parts) and _shares(m.columns, columns, parts) for m in model.quantizable())


def _shares(size: int, multiple: int, gpus: int) -> bool:
    return size % multiple == 0 and (size % gpus != 0 or (size // gpus) % multiple == 0)


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

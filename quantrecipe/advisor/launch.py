"""The command line that serves the result, with the settings that the memory estimate assumed."""

from __future__ import annotations

from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.tables import Engine

HIGHEST_SHARE = 0.97  # of a device that an engine can be told to take


def launch_line(one: Candidate, asked: Constraints, path: str = "out") -> str:
    """A shell line; for vLLM, or transformers on a CPU, where no engine was named."""
    engine = asked.program
    values = {
        "path": path, "context": asked.context, "batch": asked.batch, "gpus": asked.gpus,
        "prefill": asked.prefill or asked.context, "share": device_share(one, asked, engine),
    }  # fmt: skip
    return " ".join(part.format(**values) for part in (engine.launch, *_flags(engine, one, asked)))


def device_share(one: Candidate, asked: Constraints, engine: Engine) -> float:
    """The share of each device to tell the engine: its habit, or more where the model needs it."""
    capacity = (asked.device.memory or 0) * asked.gpus if asked.device else 0
    if not capacity:
        return engine.share
    needed = -(-one.memory.total_bytes * 100 // capacity) / 100
    return min(max(engine.share, needed), HIGHEST_SHARE)


def _flags(engine: Engine, one: Candidate, asked: Constraints) -> list[str]:
    names = []
    if asked.gpus > 1:
        names.append("tp")
    if one.kv_bits < 16:
        names.append("kv_fp8" if "kv_fp8" in engine.flags else "kv_int8")
    if asked.device:
        names.append("share")
    return [engine.flags[name] for name in names if name in engine.flags]

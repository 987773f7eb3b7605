"""The command line that serves the result, with the settings that the memory estimate assumed."""

from __future__ import annotations

import math

from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.tables import Engine

HIGHEST_SHARE = 0.97  # of a device that an engine can be told to take


def launch_line(one: Candidate, asked: Constraints, path: str = "out") -> str:
    """A shell line; for vLLM, or transformers on a CPU, where no engine was named."""
    engine = asked.program
    held = offloaded(one, asked)
    values = {
        "path": path, "context": asked.context, "batch": asked.batch, "gpus": asked.gpus,
        "prefill": asked.prefill or asked.context, "share": device_share(one, asked, engine),
        "offload": math.ceil(held / asked.gpus / 2**30),
        "layers": int(one.model.layers * (1 - held / one.memory.weights_bytes)),
    }  # fmt: skip
    return " ".join(part.format(**values) for part in (engine.launch, *_flags(engine, one, asked)))


def device_share(one: Candidate, asked: Constraints, engine: Engine) -> float:
    """The share of each device to tell the engine: its habit, or more where the model needs it."""
    capacity = (asked.device.memory or 0) * asked.gpus if asked.device else 0
    if not capacity:
        return engine.share
    needed = -(-(one.memory.total_bytes - offloaded(one, asked)) * 100 // capacity) / 100
    return min(max(engine.share, needed), HIGHEST_SHARE)


def offloaded(one: Candidate, asked: Constraints) -> int:
    """Bytes of weights in host memory: what the devices lack, uncertainty included, where that was allowed."""
    lacking = one.memory.total_bytes + one.memory.uncertainty_bytes - asked.memory
    return min(max(lacking, 0), asked.offload, one.memory.weights_bytes)


def _flags(engine: Engine, one: Candidate, asked: Constraints) -> list[str]:
    cache = engine.cache(one.kv_bits)
    on_gpu = asked.device is not None and asked.device.kind == "gpu"
    wanted = {"tp": asked.gpus > 1, "share": on_gpu, "offload": bool(offloaded(one, asked))}
    named = [engine.flags[name] for name, on in wanted.items() if on and name in engine.flags]
    return [*([str(cache["flag"])] if cache else []), *named]

"""What making the quantized model takes: main memory, device memory, disk, and a class of time."""

from __future__ import annotations

from dataclasses import dataclass

from quantrecipe.model import ModelSpec
from quantrecipe.scheme_facts import SchemeFacts

CALIBRATION_TOKENS = 128 * 2048
HESSIAN_BYTES = 4  # fp32
# Useful operations a second. gpu: llm-compressor's half hour for GPTQ of Llama-3-8B on an A100
# (cost_to_quantize.csv), taking its examples' 512 x 2048 tokens; cpu: two cores, as measured for this project.
RATES = {"gpu": 18e12, "cpu": 0.1e12}
READ_BYTES = {"gpu": 0.27e9, "cpu": 0.27e9}  # a second, for rounding alone: a minute for Llama-3-8B (same table)
_CLASSES = ((60, "seconds"), (3600, "minutes"), (86400, "hours"))


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes and a class of time (seconds, minutes, hours, days) on one A100 and on two CPU cores.

    host_bytes: one decoder block, its Hessian and the calibration activations, which is what streaming holds;
    whole_bytes: what tools that load the whole model in 16 bits hold. disk_bytes: source and result.
    """

    host_bytes: int
    whole_bytes: int
    device_bytes: int
    disk_bytes: int
    time_gpu: str
    time_cpu: str


def cost_to_quantize(model: ModelSpec, scheme: SchemeFacts, method: str, file_bytes: int) -> Cost:
    """The cost of one method; round-to-nearest without activations looks at no text."""
    block = sum(m.elements for m in model.quantizable()) * 2 // model.layers
    largest = max((m.columns for m in model.quantizable()), default=0)
    looks = method not in ("rtn", "nf4")
    hessian = HESSIAN_BYTES * largest**2 if looks else 0
    activations = 2 * CALIBRATION_TOKENS * model.hidden * 2 if looks else 0
    work = operations(model) if looks else 0.0
    whole = model.parameters * 2
    return Cost(
        block + hessian + activations, whole, 2 * block + hessian, whole + file_bytes,
        *(_time(work / RATES[where] + whole / READ_BYTES[where]) for where in ("gpu", "cpu")),
    )  # fmt: skip


def operations(model: ModelSpec) -> float:
    """Floating-point operations of GPTQ: two forward passes of the calibration text, the Hessians, the solver.

    A Hessian of K inputs takes K^2 a token (symmetric); solving N rows takes N K^2, its factor K^3.
    """
    active = model.active_experts / model.experts if model.is_moe else 1.0
    total = 0.0
    for m in model.quantizable():
        share = active if m.group == "experts" else 1.0
        total += 4 * m.elements * CALIBRATION_TOKENS * share
        total += m.count * (m.columns**2 * (CALIBRATION_TOKENS * share / 3 + m.rows) + m.columns**3)
    return total


def _time(seconds: float) -> str:
    return next((name for most, name in _CLASSES if seconds < most), "days")

"""What the user has and wants, checked: the question that the advisor answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from quantrecipe.advisor.tables import Device, Engine, device, devices, engine, engines
from quantrecipe.errors import QuantRecipeError, did_you_mean
from quantrecipe.memory import DEFAULT_PREFILL, Serving
from quantrecipe.units import parse_bytes

Objective = Literal["quality", "memory", "latency", "throughput"]
OBJECTIVES: tuple[Objective, ...] = ("quality", "memory", "latency", "throughput")
DEFAULT_LIMIT = 0.05  # likely loss allowed where speed or memory is the objective and no limit was given
ASSUMED_ENGINE = "vllm"
DEFAULT_CONTEXT = 2048  # or all that the model reads, if that is less
UNLIMITED = 10**18  # bytes: "the least memory that meets the limit" asks without a budget
MAX_CONTEXT, MAX_BATCH, MAX_GPUS = 100_000_000, 1_000_000, 1024


@dataclass(frozen=True, slots=True)
class Constraints:
    """``memory``: bytes that all devices have together for the model. ``written``: as the user wrote it.

    max_loss: largest relative increase of perplexity, kept with probability 0.8; None = no limit.
    offload: bytes of weights that may stay in host memory.
    any_context: the context was not asked for, so that a model that reads less may take its own.
    """

    memory: int
    context: int = DEFAULT_CONTEXT
    batch: int = 1
    gpus: int = 1
    device: Device | None = None
    engine: Engine | None = None
    objective: Objective = "quality"
    max_loss: float | None = None
    written: str = ""
    any_context: bool = False
    offload: int = 0

    def room(self, weights: int) -> int:
        """Bytes for the model: the devices', and host memory for as many of its weights as may be offloaded."""
        return self.memory + min(self.offload, weights)

    def for_model(self, longest: int) -> Constraints:
        """The question for a model that reads ``longest`` tokens, where no context was asked for."""
        return replace(self, context=longest) if self.any_context and self.context > longest else self

    @property
    def loss_limit(self) -> float | None:
        """The limit in force."""
        return DEFAULT_LIMIT if self.max_loss is None and self.objective != "quality" else self.max_loss

    @property
    def size_text(self) -> str | None:
        """The memory as it was written, or in bytes where it was not."""
        if self.memory >= UNLIMITED:
            return None
        return self.written or f"{self.memory}B"

    @property
    def program(self) -> Engine:
        """The engine; vLLM where none was named, which the launch line then names."""
        return self.engine or engines()[ASSUMED_ENGINE]

    @property
    def prefill(self) -> int | None:
        """Most prompt tokens a step."""
        return self.engine.prefill if self.engine else DEFAULT_PREFILL

    def serving(self, kv_bits: int) -> Serving:
        """How the model would be served with a KV cache of that many bits."""
        kind = self.device.kind if self.device else "gpu"
        cache = self.program.cache(kv_bits) or {}
        return Serving(self.context, self.batch, kv_bits, self.gpus, self.prefill, kind, cache.get("group"))


def parse_share(text: str | float) -> float:
    """A share such as ``1%`` or ``0.01``. Raises QuantRecipeError where it is no positive share."""
    raw = str(text).strip()
    try:
        value = float(raw.removesuffix("%")) / (100 if raw.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1000:
        raise QuantRecipeError("not a loss", value=text, limit="a positive share such as 1% or 0.01")
    return value


def constraints(  # noqa: PLR0913 - the question has that many parts
    memory: str | int | None = None,
    *,
    context: int | None = None,
    batch: int = 1,
    hardware: str | None = None,
    gpus: int = 1,
    engine_name: str | None = None,
    objective: str = "quality",
    max_loss: str | float | None = None,
    offload: str | int | None = None,
) -> Constraints:
    """The question, checked. Memory that is not given is what the device, or this machine's, has.

    Raises QuantRecipeError naming the value and what is allowed.
    """
    tokens = DEFAULT_CONTEXT if context is None else context
    for name, value, most in (
        ("context", tokens, MAX_CONTEXT),
        ("batch", batch, MAX_BATCH),
        ("gpus", gpus, MAX_GPUS),
    ):
        if not 1 <= value <= most:
            raise QuantRecipeError(f"{name} out of range", value=value, limit=f"1 to {most}")
    if objective not in OBJECTIVES:
        remedy = did_you_mean(objective, OBJECTIVES)
        raise QuantRecipeError("unknown objective", value=objective, limit=", ".join(OBJECTIVES), remedy=remedy)
    chosen = device(hardware) if hardware else None
    program = engine(engine_name) if engine_name else None
    if memory is None and chosen is None and max_loss is None:
        chosen, gpus = _detected(gpus)
    size = _size(memory, chosen, program, gpus, max_loss is not None)
    kind = chosen.kind if chosen else None
    if program and kind and kind not in program.devices:
        raise QuantRecipeError(f"{program.name} does not run on {kind}", value=chosen.name if chosen else None)
    limit = parse_share(max_loss) if max_loss is not None else None
    goal = "memory" if size >= UNLIMITED else next(o for o in OBJECTIVES if o == objective)
    aside = parse_bytes(offload) if offload is not None else 0
    return Constraints(
        size, tokens, batch, gpus, chosen, program, goal, limit, str(memory or ""), context is None, aside
    )


def _size(memory: str | int | None, chosen: Device | None, program: Engine | None, gpus: int, limited: bool) -> int:
    """The budget: as given, the devices', or none where only a limit of loss was given."""
    if memory is not None:
        return parse_bytes(memory)
    if chosen is None and limited:
        return UNLIMITED
    return _capacity(chosen, program, gpus)


def _capacity(chosen: Device | None, program: Engine | None, gpus: int) -> int:
    """What the devices have, less what the engine leaves free."""
    memory = chosen.memory if chosen else None
    if chosen and chosen.kind == "cpu":
        from quantrecipe.advisor.detect import host_memory

        memory = host_memory()
    if not memory:
        raise QuantRecipeError(
            "no memory named, and no device found here",
            remedy="say --mem 24GB, or --hardware NAME (qadvise hardware)",
        )
    return int(memory * gpus * (program.share if program else 1.0))


def _detected(gpus: int) -> tuple[Device | None, int]:
    """The device of this machine, and how many are used."""
    from quantrecipe.advisor.detect import detect

    found, count = detect(devices())
    return found, gpus if gpus > 1 else max(1, count)

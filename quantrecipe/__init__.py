"""quantrecipe: which quantization fits this memory, why, and is the result still good?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["advise", "estimate_memory", "predict_quality", "run"]

if TYPE_CHECKING:
    from quantrecipe.advisor.advise import advise
    from quantrecipe.advisor.evidence import predict_quality
    from quantrecipe.memory import estimate_memory
    from quantrecipe.runner.pipeline import run

_HOMES = {
    "advise": "quantrecipe.advisor.advise",
    "estimate_memory": "quantrecipe.memory",
    "predict_quality": "quantrecipe.advisor.evidence",
    "run": "quantrecipe.runner.pipeline",
}


def __getattr__(name: str) -> Any:
    """The public functions, imported when they are first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'quantrecipe' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

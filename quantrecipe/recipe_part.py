"""The base of every part of a recipe."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


def named(value: Any) -> Any:
    """``smoothquant`` stands for ``{name: smoothquant}``."""
    return {"name": value} if isinstance(value, str) else value


def name_of(value: Any) -> Any:
    """The name of a part, given as data or as an object."""
    return value.get("name") if isinstance(value, dict) else getattr(value, "name", None)

"""The hooks; importing this imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quantrecipe.plugins.contract import Backend
from quantrecipe.plugins.hookspecs import hookimpl
from quantrecipe_mseclip.backend import MseClip


@hookimpl
def quantrecipe_register_backends(register: Callable[[Backend], None]) -> None:
    """The backend."""
    register(MseClip())


@hookimpl
def quantrecipe_register_rules(register: Callable[[Path], None]) -> None:
    """The rule pack."""
    register(Path(__file__).parent / "rules.yaml")


@hookimpl
def quantrecipe_register_report_sections(
    register: Callable[[str, Callable[[Mapping[str, Any]], str]], None],
) -> None:
    """A section of the report."""
    register("Clipping", section)


def section(results: Mapping[str, Any]) -> str:
    """How much of the ranges was clipped away, for runs of this backend."""
    if results["output"]["backend"] != MseClip.name:
        return ""
    shares = [float(layer["note"].split()[-2]) for layer in results["layers"]]
    mean, least = sum(shares) / len(shares), min(shares)
    return f"Rows kept {mean:.1f} % of their range on average; the least of a layer was {least:.1f} %."

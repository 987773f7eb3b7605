"""One qrun at a terminal: progress, the run, and what it says at the end."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import click

from quantrecipe.recipe import Recipe
from quantrecipe.runner.progress import Together, for_terminal
from quantrecipe.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from quantrecipe.runner.needs import Spill


@dataclass(frozen=True, slots=True)
class Choices:
    """What was said on the command line beside the recipe."""

    model: str | None
    output: Path | None
    overwrite: bool
    preflight_only: bool
    device: str | None
    log_json: Path | None
    spill: Spill
    trust_remote_code: bool
    allow_pickle: bool
    debug: bool
    unsure: Literal["extend", "fail", "pass"] = "extend"
    baseline: Path | None = None
    formats: tuple[str, ...] = ()


def carry_out(recipe: Recipe, path: Path, choices: Choices) -> int:
    """Run the recipe, or its pre-flight alone; returns the exit code."""
    prepare_process()
    from quantrecipe.runner.report.formats import deliver, parse_formats

    wanted = parse_formats(choices.formats, os.environ)
    shown = for_terminal(choices.log_json)
    try:
        shown.start("loading libraries")
        if choices.preflight_only:
            return _preflight(recipe, choices, shown)
        from quantrecipe.runner.pipeline import run

        result = run(
            recipe,
            model=choices.model,
            output=choices.output,
            overwrite=choices.overwrite,
            device=choices.device,
            progress=shown,
            trust_remote_code=choices.trust_remote_code,
            allow_pickle=choices.allow_pickle,
            spill=choices.spill,
            command=_command(path),
            unsure=choices.unsure,
            baseline=choices.baseline,
            recipe_file=path,
        )
    finally:
        shown.close()
    click.echo(deliver(result.results, wanted, os.environ), nl=False)
    click.echo(f"checkpoint: {result.output}")
    click.echo(f"report: {result.report}")
    return result.exit_code


def _preflight(recipe: Recipe, choices: Choices, shown: Together) -> int:
    from quantrecipe.plugins.contract import Estimates
    from quantrecipe.runner.locate import find
    from quantrecipe.runner.pickles import without_pickles
    from quantrecipe.runner.pipeline import order, override
    from quantrecipe.runner.preflight import preflight
    from quantrecipe.runner.staging import Staging, check_output, scratch_of

    asked = override(recipe, choices.model, choices.output)
    target = Path(asked.output.path)
    shown.start("preflight")
    model = find(asked.model.id, asked.model.revision)
    if choices.allow_pickle:
        model = without_pickles(model, target)
    check_output(target, choices.overwrite, keep=model)
    prepared = preflight(asked, model, target, choices.device, choices.trust_remote_code, choices.spill)
    for note in prepared.notes:
        shown.note(note)
    shown.close()
    memory, disk = format_bytes(prepared.needs.total_memory), format_bytes(prepared.needs.disk)
    line = f"ready: {len(prepared.plan.quantized)} layers, about {memory} of memory and {disk} of disk"
    if isinstance(prepared.backend, Estimates):
        job = order(prepared, Staging(target, scratch_of(target)), shown, choices.trust_remote_code)
        line += f", {format_seconds(prepared.backend.estimate(job))} to quantize, by its first block"
    click.echo(line)
    return 0


def prepare_process() -> None:
    """Before torch is imported: libraries keep quiet, and SIGTERM ends a run as an interrupt does.

    Threads that wait must sleep: OpenMP's default is to spin, which made the demo's evaluation 4 to 14 times
    slower on 2 cores that other processes use as well.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _command(path: Path) -> str:
    """What was typed, with the program's name alone."""
    return shlex.join(["qrun", *sys.argv[1:]]) if sys.argv[1:] else f"qrun {path}"

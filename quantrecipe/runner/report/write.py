"""Writes results.json, the Markdown report and its plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from quantrecipe.errors import OutputError, QuantRecipeError
from quantrecipe.modeling.writer import write_json, write_text
from quantrecipe.recipe import Output
from quantrecipe.runner.baseline import read_results
from quantrecipe.runner.finish import RESULTS
from quantrecipe.runner.report.markdown import render
from quantrecipe.runner.report.plot import layer_plot
from quantrecipe.runner.staging import Staging

REPORT = "report.md"


def write_report(results: Mapping[str, Any], stage: Staging, output: Output) -> Path:
    """Write results and report into the checkpoint's temporary folder, or the report where the recipe wants it.

    Returns the path that the report has once the folder is in its place.
    """
    write_json(stage.folder / RESULTS, results)
    wanted = report_path(stage.output, output)
    if stage.output in wanted.parents:
        write_markdown(results, stage.folder / wanted.relative_to(stage.output))
    else:
        write_markdown(results, wanted)
    return wanted


def report_path(folder: Path, output: Output) -> Path:
    """Where the report of a checkpoint in ``folder`` lies."""
    return Path(output.report).absolute() if output.report else folder / REPORT


def write_beside(results: Mapping[str, Any], folder: Path) -> None:
    """results.json, report and plot in a folder of their own."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("cannot write the report", value=str(folder), limit=error.strerror) from error
    write_json(folder / RESULTS, results)
    write_markdown(results, folder / REPORT)


def write_markdown(results: Mapping[str, Any], path: Path) -> None:
    """The report at ``path``, and its plot beside it as ``<name>-layers.svg``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("cannot write the report", value=str(path), limit=error.strerror) from error
    plot = path.with_name(f"{path.stem}-layers.svg") if results["layers"] else None
    if plot is not None:
        write_text(plot, layer_plot(results["layers"]))
    write_text(path, render(results, None if plot is None else plot.name))


def rerender(results_path: Path, output: Path | None = None) -> Path:
    """Render a results.json again; beside it unless told otherwise. Raises QuantRecipeError."""
    results = read_results(results_path)
    path = output or results_path.with_name(REPORT)
    try:
        write_markdown(results, path)
    except (TemplateError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        limit = " ".join(str(error).split())[:100]
        what = "not a results.json that a report can be made of"
        raise QuantRecipeError(what, value=str(results_path), limit=limit) from error
    return path

"""The options that describe the question, shared by the command and its subcommands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from quantrecipe.advisor.constraints import OBJECTIVES

EFFORTS = ("low", "default", "high")
FORMATS = ("text", "json", "yaml", "markdown")
F = TypeVar("F", bound=Callable[..., Any])

_QUESTION = (
    click.option("--mem", "--memory", "memory", help="Memory of all devices together: 80GB, 24GiB."),
    click.option(
        "--context", type=int, help="Tokens of prompt and answer.  [default: 2048, or what the model reads]"
    ),
    click.option("--batch", type=int, default=1, show_default=True, help="Sequences at once."),
    click.option("--hardware", help="Device, such as a100-80gb (qadvise hardware)."),
    click.option("--gpus", type=int, default=1, show_default=True, help="Devices that share the model."),
    click.option("--engine", help="vllm, vllm@0.25, sglang, transformers, tensorrt-llm or llama.cpp."),
    click.option("--offload", help="Host memory that may hold weights, such as 20GB (slow)."),
    click.option("--objective", default="quality", show_default=True, help=", ".join(OBJECTIVES)),
    click.option("--max-loss", help="Largest increase of perplexity, such as 1%."),
)


def question(command: F) -> F:
    """Adds the options of a question to a command."""
    for option in reversed(_QUESTION):
        command = option(command)
    return command


_MEASURING = (
    click.option(
        "--measure", is_flag=True, help="Measure the model's own layers and choose a scheme for each."
    ),
    click.option("--size", help="With --measure: the most that the weight files may take, instead of --mem."),
    click.option("--effort", type=click.Choice(EFFORTS), help="With --measure: how dearly.  [default: default]"),
    click.option(
        "--pin", multiple=True, metavar="LAYERS=BITS",
        help='With --measure: fix layers, "re:.*down_proj=8", lm_head=16 or NAME=w4a16-g64; may be repeated.',
    ),
    click.option("--schemes", help="With --measure: the schemes to choose among, such as w3a16,w4a16-g64."),
    click.option("--calibration", help="With --measure: builtin, a text file or hub id; NAME:128x512 says how much."),
    click.option("--frontier", is_flag=True, help="With --measure: the best loss at every size."),
)  # fmt: skip
MEASURING = ("measure", "size", "effort", "pin", "schemes", "calibration", "frontier")


def measuring(command: F) -> F:
    """Adds the options of a measurement to a command."""
    for option in reversed(_MEASURING):
        command = option(command)
    return command

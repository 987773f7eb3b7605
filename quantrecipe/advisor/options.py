"""The options that describe the question, shared by the command and its subcommands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from quantrecipe.advisor.constraints import OBJECTIVES

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

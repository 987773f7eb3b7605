"""qadvise memory: what one model needs under one scheme."""

from __future__ import annotations

import json
from typing import Any

import click

from quantrecipe.advisor.as_json import memory_json
from quantrecipe.advisor.constraints import Constraints, constraints
from quantrecipe.advisor.cost import Cost, cost_to_quantize
from quantrecipe.advisor.options import question
from quantrecipe.advisor.render.style import stdout_style
from quantrecipe.advisor.render.text import memory_table
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import QuantRecipeError
from quantrecipe.memory import MemoryEstimate, estimate
from quantrecipe.model import ModelSpec
from quantrecipe.scheme_facts import SchemeFacts, scheme_facts
from quantrecipe.storage import check_format
from quantrecipe.units import format_both, format_bytes


@click.command()
@question
@click.option("--model", "-m", required=True, help="Catalogue name, hub id, folder or config.json.")
@click.option(
    "--scheme", "-s", default="w16a16", show_default=True, help="Such as w4a16-g128; w16a16 is unquantized."
)
@click.option("--output-format", default="auto", show_default=True, help="compressed-tensors, gptq, awq, …")
@click.option("--kv-bits", type=int, default=16, show_default=True, help="16, 8 or 4.")
@click.option("--method", default="gptq", show_default=True, help="For what quantizing itself takes.")
@click.option("--what-if", is_flag=True, help="A table of memory by context and scheme.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def memory(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: str, scheme: str, output_format: str, kv_bits: int, method: str, what_if: bool, form: str, **asked: Any
) -> None:
    """Memory of MODEL under SCHEME, line by line."""
    budget, spec, facts = asked.pop("memory"), resolve_model(model), scheme_facts(scheme)
    given = constraints(budget or "1TB", engine_name=asked.pop("engine"), **asked).for_model(spec.context)
    if kv_bits not in (4, 8, 16):
        raise QuantRecipeError("kv bits not known", value=kv_bits, limit="4, 8 or 16")
    found = estimate(spec, facts, check_format(facts, output_format), given.serving(kv_bits))
    cost = cost_to_quantize(spec, facts, method, found.file_bytes)
    if form == "json":
        click.echo(json.dumps({"memory": _json(found, budget, given, cost)}, indent=2))
        return
    click.echo(_text(spec, facts, found, given if budget else None, cost))
    if what_if:
        from quantrecipe.advisor.render.what_if import what_if_text

        click.echo("\n" + what_if_text(spec, given), nl=False)


def _json(found: MemoryEstimate, budget: str | None, given: Constraints, cost: Cost) -> dict[str, Any]:
    verdicts = {
        "verdict": found.verdict(given.memory) if budget else None,
        "weights_verdict": found.weights_verdict(given.memory) if budget else None,
    }
    return {
        **memory_json(found), "bits_per_weight": round(found.bits_per_weight, 4),
        "output_format": found.output_format, "per_gpu_bytes": found.per_gpu_bytes, **verdicts,
        "cost_to_quantize": {name: getattr(cost, name) for name in cost.__slots__},
    }  # fmt: skip


def _text(spec: ModelSpec, facts: SchemeFacts, found: MemoryEstimate, given: Constraints | None, cost: Cost) -> str:
    style = stdout_style()
    head = f"{spec.id} ({spec.parameters:,} parameters), {facts.name}, as {found.output_format}"
    lines = [style.bold(head), f"  {found.bits_per_weight:.3f} bits a quantized weight"]
    if given:
        weights, verdict = found.weights_verdict(given.memory), found.verdict(given.memory)
        lines.append(
            f"  in {given.size_text}: serving {style.verdict(verdict)}, weights alone {style.verdict(weights)}"
        )
    lines += ["", memory_table(found)]
    if found.gpus > 1:
        lines.append(f"  each of {found.gpus} devices holds {format_both(found.per_gpu_bytes)}")
    lines += ["", style.bold("To quantize it"), *_cost_lines(cost)]
    return "\n".join(lines)


def _cost_lines(cost: Cost) -> list[str]:
    return [
        f"  main memory {format_bytes(cost.host_bytes)} a block at a time, {format_bytes(cost.whole_bytes)} at once",
        f"  device memory {format_bytes(cost.device_bytes)}, disk {format_bytes(cost.disk_bytes)}",
        f"  {cost.time_gpu} on an A100, {cost.time_cpu} on two CPU cores",
    ]

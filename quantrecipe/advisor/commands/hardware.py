"""qadvise hardware: the devices and engines that --hardware and --engine take."""

from __future__ import annotations

import json

import click

from quantrecipe.advisor.render.style import stdout_style
from quantrecipe.advisor.render.table import table
from quantrecipe.advisor.render.text import wrap
from quantrecipe.advisor.tables import Device, devices, engines, read_at, sources


@click.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def hardware(form: str) -> None:
    """Known devices and engines, with the version at which each was read."""
    if form == "json":
        rows = {
            "devices": [device._asdict() for device in devices().values()],
            "engines": [{"key": key, **engine._asdict()} for key, engine in engines().items()],
            "read": read_at(),
            "sources": sources(),
        }
        click.echo(json.dumps(rows, indent=2, default=dict))
        return
    style = stdout_style()
    click.echo(style.bold(f"Devices (read {read_at()})"))
    head = ("", "GB", "GiB", "architecture", "capability", "memory")
    click.echo(table(head, [_device(d) for d in devices().values()]))
    for field, where in sources().items():
        click.echo(wrap(f"{field}: {where}"))
    click.echo("\n" + style.bold("Engines"))
    rows_ = [(key, e.version, ", ".join(e.formats), ", ".join(e.kv) or "-") for key, e in engines().items()]
    click.echo(table(("", "version", "formats", "KV bits"), rows_))
    for key, engine in engines().items():
        click.echo(f"\n{style.bold(key)} {engine.version}, read in")
        for source in engine.sources:
            click.echo(wrap(source, "  - ", "    "))
        if engine.unverified:
            click.echo(wrap(f"unverified: {', '.join(engine.unverified)}", "  - ", "    "))


def _device(device: Device) -> tuple[str, ...]:
    if device.memory is None:
        return (device.name, "this machine's", "", device.architecture, "", "measured")
    capability = f"{device.compute_capability:.1f}" if device.compute_capability else "-"
    return (
        device.name,
        f"{device.memory / 1e9:.1f}",
        f"{device.memory / 2**30:.1f}",
        device.architecture,
        capability,
        "checked" if device.checked else "unverified",
    )

"""qadvise hardware: the devices and engines that --hardware and --engine take."""

from __future__ import annotations

import json

import click

from quantrecipe.advisor.render.style import stdout_style
from quantrecipe.advisor.render.table import table
from quantrecipe.advisor.tables import Device, devices, engines, read_at


@click.command()
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def hardware(form: str) -> None:
    """Known devices and engines, with the version at which each was read."""
    if form == "json":
        rows = {
            "devices": [device._asdict() for device in devices().values()],
            "engines": [engine._asdict() for engine in engines().values()],
            "read": read_at(),
        }
        click.echo(json.dumps(rows, indent=2))
        return
    style = stdout_style()
    click.echo(style.bold(f"Devices (read {read_at()})"))
    click.echo(table(("", "GB", "GiB", "architecture", "capability"), [_device(d) for d in devices().values()]))
    click.echo("\n" + style.bold("Engines"))
    rows_ = [(e.name, e.version, ", ".join(e.formats), ", ".join(e.kv) or "-") for e in engines().values()]
    click.echo(table(("", "version", "formats", "8-bit KV"), rows_))


def _device(device: Device) -> tuple[str, ...]:
    if device.memory is None:
        return (device.name, "this machine's", "", device.architecture, "")
    capability = f"{device.compute_capability:.1f}" if device.compute_capability else "-"
    return (
        device.name,
        f"{device.memory / 1e9:.1f}",
        f"{device.memory / 2**30:.1f}",
        device.architecture,
        capability,
    )

"""``qrun kernels``: the CUDA kernels, how each stands on a device, and how to compile them ahead."""

from __future__ import annotations

import json

import click

from quantrecipe.runner.commands.options import debug

form = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)


@click.group(invoke_without_command=True)
@click.option("--arch", metavar="sm_NN", help="Of this architecture; if not given: of the GPU here.")
@click.option("--variants", is_flag=True, help="A line for every variant of a kernel.")
@form
@debug
@click.pass_context
def kernels(ctx: click.Context, arch: str | None, variants: bool, form: str, debug: bool) -> int | None:
    """List the CUDA kernels: compiled, cached, not built, or unsupported and why; registers, shared memory."""
    from quantrecipe.kernels.status import DEFAULT_SM, device_sm, parse_sm, statuses
    from quantrecipe.runner.kernels_table import as_text

    if ctx.invoked_subcommand is not None:
        return None
    here = None if arch else device_sm()
    found = statuses(parse_sm(arch) if arch else here or DEFAULT_SM)
    if form == "json":
        click.echo(json.dumps([one.as_dict() for one in found], indent=2))
        return 0
    if not arch and here is None:
        click.echo(f"no GPU here: shown for sm_{DEFAULT_SM} (--arch for another)")
    click.echo(as_text(found, variants))
    return 0


@kernels.command()
@click.argument("names", metavar="[KERNEL]...", nargs=-1)
@click.option("--arch", "archs", multiple=True, metavar="sm_NN", help="Repeatable; if not given: the GPU's here.")
@form
@debug
def build(names: tuple[str, ...], archs: tuple[str, ...], form: str, debug: bool) -> int:
    """Compile every variant, or those of KERNEL, into the cache; needs no GPU where --arch is given."""
    from quantrecipe.errors import QuantRecipeError
    from quantrecipe.kernels.status import build as make
    from quantrecipe.kernels.status import device_sm, parse_sm
    from quantrecipe.runner.kernels_table import as_text
    from quantrecipe.user_cache import FOLDER, cache_folder

    if cache_folder() is None:
        raise QuantRecipeError("nothing is kept", value=f"{FOLDER}=off", remedy=f"unset {FOLDER}")
    here = None if archs else device_sm()
    if not archs and here is None:
        raise QuantRecipeError("no GPU here", remedy="say for which: --arch sm_90")
    found = list(make([parse_sm(arch) for arch in archs] or [here or 0], names))
    click.echo(json.dumps([one.as_dict() for one in found], indent=2) if form == "json" else as_text(found))
    return 2 if any(one.state == "unsupported" for one in found) else 0

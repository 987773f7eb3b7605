"""Every method, transform and compensation of the native backend, on one model, through ``qrun``, in one table.

    python benchmarks/methods.py STORE                      # the demo model
    python benchmarks/methods.py STORE --model SmolLM2-135M # a folder
    python benchmarks/methods.py STORE --model SmolLM2-135M --speed --peer hqq=PYTHON --peer gptqmodel=PYTHON …

Each recipe runs whole (quantize, finish, verify by another loader, evaluate), in a process of its own. A row is kept
in STORE when it is done, so that a stopped run goes on. CPU seconds, since wall time depends on who else is there.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from method_rows import LARGE_ROWS, ROWS
from method_speed import report
from rows import LARGE, MISSING, SMALL, Row, Store, carry_out_missing, quantizing, run_here, write_below

HEAD = (
    "| recipe | perplexity | against the original | KL | agreement | bits a weight | CPU s | peak MB | read back by |"
)


def settled(model: str, name: str) -> Row:
    """The row of that name, in the setting that suits the model."""
    if Path(model).name == "demo":
        return Row(model, name, ROWS[name], SMALL)
    return Row(model, name, {**ROWS, **LARGE_ROWS}[name], LARGE)


def line(name: str, found: dict[str, Any] | None) -> str:
    """One row of the table."""
    if found is None or "measures" not in found:
        return f"| {name} |" + f" {MISSING} |" * 8
    measures, increase = found["measures"], found["measures"]["increase"]
    low, high = (math.nan if x is None else x for x in (increase["low"], increase["high"]))
    shown = (
        name,
        f"{measures['quantized_perplexity']:.3f}",
        f"{increase['value']:+.2%} ({low:+.2%} … {high:+.2%})",
        f"{measures['kl']['value']:.4f}",
        f"{measures['agreement']['value']:.1%}",
        f"{found['size']['bits_per_weight']:.3f}",
        f"{quantizing(found['cpu_seconds']):.1f}",
        f"{found['peak_memory'] / 1e6:.0f}",
        found["loader"],
    )
    return "| " + " | ".join(shown) + " |"


def table(model: str, store: Store) -> str:
    """All rows, measured or not, and what was left out."""
    found = {name: store.read(settled(model, name)) for name in ROWS}
    lines = [HEAD, "|---|--:|--:|--:|--:|--:|--:|--:|---|", *(line(name, one) for name, one in found.items())]
    missing = [name for name, one in found.items() if one is None or "measures" not in one]
    first = next((one for one in found.values() if one is not None and "measures" in one), None)
    tail = [f"original perplexity {first['measures']['perplexity']:.3f}"] if first else []
    tail += [f"Not measured: {'; '.join(missing)}."] if missing else []
    return "\n".join([*lines, "", *tail])


def show(args: argparse.Namespace, what: str, text: str) -> None:
    """On the terminal and, if asked for, in a page."""
    print(text)
    if args.docs:
        write_below(args.docs, f"benchmarks/methods.py, {what}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--again", action="store_true", help="measure anew what other code than this measured")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--speed", action="store_true", help="CPU seconds a weight and token; needs a --model folder")
    parser.add_argument("--peer", action="append", default=[], help="NAME=PYTHON, an environment with that library")
    parser.add_argument("--docs", type=Path, help="a page to put the table into, where its marks are")
    parser.add_argument("--run", choices=ROWS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.speed:
        show(
            args,
            "speed",
            report(args.store, Path(args.model), dict(one.split("=", 1) for one in args.peer), args.rows),
        )
        return
    store = Store(args.store.absolute())
    model = args.model if args.model == "demo" else str(Path(args.model).absolute())
    if args.run:
        raise SystemExit(run_here(settled(model, args.run), store))
    if not args.table:
        carry_out_missing(Path(__file__), (settled(model, name) for name in args.rows), store, args.again)
    show(args, Path(model).name, table(model, store))


if __name__ == "__main__":
    main()

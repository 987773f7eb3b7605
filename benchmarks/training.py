"""What training gains over rounding, in every precision, on one model, through ``qrun``, in one table.

    python benchmarks/training.py STORE --docs docs/training.md                       # the demo model
    python benchmarks/training.py STORE --model SmolLM2-135M --docs docs/training.md  # a folder; one precision

Each recipe runs whole, in a process of its own, and is paired, window by window, with the same scheme untrained. A
row is kept in STORE when it is done. CPU seconds, since wall time depends on who else is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rows import MISSING, Row, Setting, Store, carry_out_missing, group, percent, quantizing, run_here, write_below

from quantrecipe.runner.intervals import mean_interval

HEAD = "| recipe | perplexity | against it untrained | KL | CPU s | peak MB | foreseen MB |\n|---|" + "--:|" * 6
PRECISIONS = "mixed", "fp32", "bf16", "fp16"
#: 60 steps of 4 x 256 tokens; for a folder 49 of 4 x 512, about 100,000.
SMALL, LARGE = (Setting(128, 256, 40, 256), 60), (Setting(208, 512, 40, 256), 49)
#: What each scheme is written as, and who writes it untrained.
FORMS = {"w4a8-g64": "compressed-tensors", "w4a16-g64": "compressed-tensors", "nf4-dq": "bitsandbytes"}

Quantizations = dict[str, tuple[str, dict[str, Any]]]


def _untrained(scheme: str) -> Quantizations:
    return {f"{scheme}, untrained": (f"{scheme}, untrained", group(scheme, format=FORMS[scheme]))}


def _trained(name: str, scheme: str, **training: Any) -> tuple[str, dict[str, Any]]:
    """The row that it is set beside, and the recipe's part."""
    part = group(scheme, backend="training", format=FORMS[scheme], training={"name": name, "batch": 4, **training})
    return f"{scheme}, untrained", part


def small_rows(steps: int) -> Quantizations:
    """Both trainings in four precisions, the slow fp16 at the end."""
    mend = {"rank": 8, "objective": "original", "learning_rate": 1e-3, "steps": steps}
    qat = {
        f"qat w4a8-g64, {one}": _trained("qat", "w4a8-g64", precision=one, learning_rate=1e-4, steps=steps)
        for one in PRECISIONS
    }
    qlora = {f"qlora nf4-dq, {one}": _trained("qlora", "nf4-dq", precision=one, **mend) for one in PRECISIONS}
    others = {
        "qlora nf4-dq, mixed, merged": _trained("qlora", "nf4-dq", precision="mixed", adapter="merged", **mend),
        "qlora nf4-dq, mixed, on the text alone": _trained(
            "qlora", "nf4-dq", precision="mixed", **(mend | {"objective": "tokens", "learning_rate": 2e-4})
        ),
    }
    return {**_untrained("w4a8-g64"), **qat, **_untrained("nf4-dq"), **qlora, **others}


def large_rows(steps: int) -> Quantizations:
    """Both trainings in bf16."""
    qat = _trained("qat", "w4a16-g64", precision="bf16", learning_rate=5e-5, steps=steps)
    qlora = _trained(
        "qlora", "nf4-dq", precision="bf16", rank=8, objective="original", learning_rate=1e-3, steps=steps
    )
    return {
        **_untrained("w4a16-g64"), "qat w4a16-g64, bf16": qat, **_untrained("nf4-dq"), "qlora nf4-dq, bf16": qlora,
    }  # fmt: skip


def rows_of(model: str) -> dict[str, tuple[Row, str]]:
    """Each row, and the name of the one that it is set beside."""
    small = Path(model).name == "demo"
    setting, steps = SMALL if small else LARGE
    made = small_rows(steps) if small else large_rows(steps)
    return {name: (Row(model, name, part, setting), beside) for name, (beside, part) in made.items()}


def foreseen(row: Row) -> int:
    """Bytes of memory that pre-flight counts."""
    from quantrecipe.modeling.folder import ModelFolder
    from quantrecipe.modeling.plan import make_plan
    from quantrecipe.modeling.skeleton import Skeleton
    from quantrecipe.runner.capability import choose_backend
    from quantrecipe.runner.engine_check import is_odd
    from quantrecipe.runner.locate import find
    from quantrecipe.runner.preflight import plan_needs

    recipe, skeleton = row.recipe(), Skeleton(ModelFolder.open(find(row.model)))
    plan = make_plan(recipe, skeleton.linears())
    return plan_needs(recipe, plan, skeleton, choose_backend(recipe, is_odd(plan), "cpu")[0], "cpu").total_memory


def change(found: dict[str, Any], beside: dict[str, Any] | None) -> str:
    """Perplexity against the untrained scheme, paired by windows, with its 95 % interval."""
    if beside is None or beside is found:
        return "" if beside is found else MISSING
    return percent(mean_interval((np.array(found["quantized"]) - np.array(beside["quantized"])).tolist()))


def lines(model: str, store: Store) -> Iterator[str]:
    """The table, row by row."""
    rows = rows_of(model)
    read = {name: store.read(row) for name, (row, _) in rows.items()}
    yield HEAD
    for name, (row, beside) in rows.items():
        found = read[name]
        if found is None:
            yield f"| {name} |" + f" {MISSING} |" * 6
            continue
        measures = found["measures"]
        shown = (
            name,
            f"{measures['quantized_perplexity']:.3f}",
            change(found, found if beside == name else read[beside]),
            f"{measures['kl']['value']:.4f}",
            f"{quantizing(found['cpu_seconds']):.0f}",
            f"{found['peak_memory'] / 1e6:.0f}",
            f"{foreseen(row) / 1e6:.0f}",
        )
        yield "| " + " | ".join(shown) + " |"
    first = next((one for one in read.values() if one is not None), None)
    yield from ("", f"original perplexity {first['measures']['perplexity']:.3f}") if first else ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", nargs="+", help="some of them; all = without this")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--docs", type=Path, help="a page to put the table into, where its marks are")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    store = Store(args.store.absolute())
    model = args.model if args.model == "demo" else str(Path(args.model).absolute())
    rows = rows_of(model)
    if args.run:
        raise SystemExit(run_here(rows[args.run][0], store))
    order = sorted(args.rows or rows, key=lambda name: "fp16" in name)
    if not args.table:
        carry_out_missing(Path(__file__), (rows[name][0] for name in order), store)
    text = "\n".join(lines(model, store))
    print(text)
    if args.docs:
        write_below(args.docs, f"benchmarks/training.py, {Path(model).name}", text)


if __name__ == "__main__":
    main()

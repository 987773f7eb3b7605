"""Mixed precision against uniform at the same bytes, the same method and the same text: the table of docs/mixed.md.

    python benchmarks/mixed.py OUT demo SmolLM2-135M          # every row that is missing, then the table
    python benchmarks/mixed.py OUT SmolLM2-135M --rows w3a16-g64 time --threads 1

Each row's result is kept as OUT/<model>/<row>.json and not made again; a row that was stopped goes on. A row
SCHEME compares the mix of at most the bytes that the uniform SCHEME's files have; ``exhaustive`` a small case with
all its mixes; ``time`` the measuring with one GPTQ pass; ``autoround-BITS`` auto-round's AutoScheme at those average
bits (its environment: qrun backends install auto-round). No choice has seen the windows that the table tells of.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from mixed_cases import DEFAULT_ROWS, Case
from mixed_rows import against_uniform, autoround, exhaustive, timed
from mixed_table import table

from quantrecipe.modeling.files import make_folder, write_whole


def row(case: Case, name: str) -> dict[str, object]:
    """The result of one row."""
    if name == "time":
        return timed(case)
    if name == "exhaustive":
        return exhaustive(case)
    if name.startswith("autoround-"):
        return autoround(case, float(name.removeprefix("autoround-")))
    return against_uniform(case, name)


def main() -> None:
    """Make the missing rows, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rows", nargs="+", help="default: all of the model's")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for model in args.models:
        case = Case.of(model, args.out)
        for name in args.rows or DEFAULT_ROWS.get(case.name, DEFAULT_ROWS[""]):
            path = make_folder(case.out) / f"{name}.json"
            if not path.exists():
                print(f"{case.name}: {name}", file=sys.stderr, flush=True)
                write_whole(path, [json.dumps(row(case, name), indent=1).encode()])
    print(table(args.out))


if __name__ == "__main__":
    main()

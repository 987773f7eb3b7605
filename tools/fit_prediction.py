"""Fit the quality model from the published tables and write what ships; --docs writes its page; --check compares.

python tools/fit_prediction.py            # quantrecipe/rules/prediction_model.json and _rows.jsonl (a minute)
python tools/fit_prediction.py --docs     # and docs/prediction.md, docs/prediction.svg
python tools/fit_prediction.py --check    # exit 1 where a fresh run would change what is committed
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: small matrices, and the same sums every run
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import json
import math
import re
import sys
from collections import Counter, defaultdict
from dataclasses import astuple
from pathlib import Path
from typing import Any

from accuracy_fit import Accuracy, accuracy
from prediction_calibration import Record, data, fit_widths, held_out
from prediction_regression import Fit, Observation, fit, observations

from quantrecipe.rules import evidence_table as table
from quantrecipe.rules.evidence_row import EvidenceRow
from quantrecipe.rules.prediction_rows import POOLED, STRINGS

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "quantrecipe" / "rules"
BASELINE_METRICS = ("ppl_wiki2", "ppl_c4", "ppl_ptb", "ppl_mean")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
STAND_FOR_ALL = ("llama-2", "llama-3", "falcon")  # shown beside an answer for a family that no table has
ACCURACIES = ("acc_", "mmlu", "ceval", "csqa", "zeroshot", "triviaqa", "gsm8k", "avg_", "ifeval", "race")


def baselines(rows: list[EvidenceRow]) -> dict[str, dict[str, dict[str, float]]]:
    """family -> size -> data set -> the 16-bit perplexity that most sources print (the first, where they tie)."""
    votes: dict[tuple[str, str, str], Counter[float]] = defaultdict(Counter)
    for family, size, metric, value, _ in sorted(
        {(r.family, f"{r.params_b:g}", r.metric, r.baseline, r.source) for r in rows
         if r.baseline and r.metric in BASELINE_METRICS and r.params_b > 0 and not r.suspect},
        key=lambda v: (v[:3], table.age(v[4]))):  # fmt: skip
        votes[family, size, metric][value] += 1
    out: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for (family, size, metric), counted in votes.items():
        out[family][size][metric] = counted.most_common(1)[0][0]
    return out


def tokens() -> dict[str, int]:
    """tokenizer -> tokens that it makes of WikiText-2's test text."""
    with (table.FOLDER / "wikitext2_tokens.csv").open(newline="", encoding="utf-8") as file:
        return {row["tokenizer"]: int(row["tokens"]) for row in csv.DictReader(file)}


def compact_rows() -> str:
    """A line a family: rows as lists in EvidenceRow's order, a repeated string as [its number]; no misprints."""
    shown = table.deduplicate(r for r in table.load() if not r.suspect and r.params_b > 0 and _shown(r))
    strings: dict[str, int] = {}
    families: dict[str, list[list[Any]]] = defaultdict(list)
    for row in shown:
        packed = [[strings.setdefault(v, len(strings))] if isinstance(v, str) else _short(v) for v in astuple(row)]
        families[row.family].append(packed)
        if row.family in STAND_FOR_ALL and row.metric == "ppl_wiki2" and row.loss is not None:
            families[POOLED].append(packed)
    families[STRINGS] = [list(strings)]
    lines = (f"{name}\t{json.dumps(found, separators=(',', ':'), ensure_ascii=False)}" for name, found in
             sorted(families.items()))  # fmt: skip
    return "\n".join(lines) + "\n"


def _shown(row: EvidenceRow) -> bool:
    quantized = min(row.bits, row.act_bits, row.kv_bits) < 16
    return quantized and (row.loss is not None or row.metric.startswith(ACCURACIES))


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def cross_validate(found: list[Observation]) -> tuple[list[Record], list[Record]]:
    """Rows predicted without their group of linked sources, and without their family."""
    return held_out(found, lambda o: o.group), held_out(found, lambda o: o.row.family)


def outputs(found: list[Observation], fitted: Fit, widths: dict[str, float], scored: Accuracy) -> dict[Path, str]:
    model = data(found, widths, fitted)
    model |= {"baselines": baselines(table.load()), "tokens": tokens(), "accuracy": scored.data()}
    compact = {"separators": (",", ":"), "ensure_ascii": False}
    return {
        RULES / "prediction_model.json": json.dumps(model, sort_keys=True, **compact) + "\n",  # type: ignore[arg-type]
        RULES / "prediction_rows.jsonl": compact_rows(),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="also write docs/prediction.md and its plot")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")
    options = parser.parse_args(arguments)
    found = observations()
    fitted = fit(found)
    by_group, by_family = cross_validate(found)
    widths = fit_widths(by_group + by_family)
    scored = accuracy(found, widths)
    written = outputs(found, fitted, widths, scored)
    if options.docs or options.check:
        from prediction_docs import page, plot

        written[ROOT / "docs" / "prediction.md"] = page(found, fitted, (by_group, by_family), scored)
        written[ROOT / "docs" / "prediction.svg"] = plot(by_group, by_family)
    return _check(written) if options.check else _write(written)


def _write(written: dict[Path, str]) -> int:
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(text.encode()):,} bytes")
    return 0


def same(old: str, new: str) -> bool:
    """Equal text, numbers equal but for what another BLAS changes: 2 %, or 0.05 where they are small."""
    if NUMBER.sub("#", old) != NUMBER.sub("#", new):
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    return all(a == b or math.isclose(float(a), float(b), rel_tol=0.02, abs_tol=0.05) for a, b in pairs)


def _check(written: dict[Path, str]) -> int:
    stale = [p for p, text in written.items() if not p.exists() or not same(p.read_text(encoding="utf-8"), text)]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is stale: run python tools/fit_prediction.py --docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

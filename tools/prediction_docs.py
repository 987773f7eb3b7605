"""docs/prediction.md and its plot, from the same run that writes the model."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from accuracy_fit import Accuracy
from prediction_calibration import LEVELS, REGIMES, Record, coverage, fit_widths, inside
from prediction_regression import Fit, Observation

from quantrecipe.rules import evidence_table as table
from quantrecipe.rules.prediction_accuracy import METRICS
from quantrecipe.rules.prediction_scale import COLLAPSE, FLOOR, SEVERITY, to_loss

matplotlib.use("Agg")
from matplotlib import pyplot as plt

TEMPLATE = Path(__file__).with_name("prediction_page.md")


def page(found: list[Observation], fitted: Fit, records: tuple[list[Record], list[Record]], scored: Accuracy) -> str:
    """The Markdown page."""
    from prediction_calibration import TARGET
    from prediction_regression import cell_of

    by_group, by_family = records
    loaded = table.load()
    losses = [r for r in loaded if r.loss is not None and min(r.bits, r.act_bits, r.kv_bits) < 16]
    widths = fit_widths(by_group + by_family)
    suspects = sum(r.suspect for r in losses)
    return TEMPLATE.read_text(encoding="utf-8").format(
        loaded=len(loaded), usable=len(losses), suspects=suspects, rows=len(found),
        quotes=len(losses) - suspects - len(found), cells=len({cell_of(o) for o in found}),
        sources=len({o.row.source for o in found}), groups=len({o.group for o in found}), floor=FLOOR,
        collapse=COLLAPSE, percent=100 * np.expm1(COLLAPSE), severity=SEVERITY, target=TARGET,
        widths="\n".join(f"| {k} | {v:+.2f} |" for k, v in widths.items()),
        by_group=_coverage(by_group), by_family=_coverage(by_family), by_regime=_regimes(by_group, widths),
        effects=_effects(fitted), accuracy_rows=len(scored.found), accuracy_curves=_curves(scored),
        accuracy_groups=_accuracy_groups(scored), tokens=_tokens(),
    )  # fmt: skip


def _coverage(records: list[Record]) -> str:
    rows = coverage(records)
    return "\n".join(f"| {'**all**' if k == 'all' else k} | {n} | {share:.0%} |" for k, (n, share) in rows.items())


def _regimes(records: list[Record], widths: dict[str, float]) -> str:
    lines = []
    for name in REGIMES:
        for level in LEVELS:
            here = [r for r in records if (r.regime, r.knowledge) == (name, level)]
            if here:
                share = np.mean([inside(r, widths) for r in here])
                factor = np.exp(np.median([abs(r.error) for r in here]))
                lines.append(f"| {name}, {level} | {len(here)} | {share:.0%} | {factor:.2f} |")
    return "\n".join(lines)


def _curves(scored: Accuracy) -> str:
    lines = []
    for kind, what in METRICS.items():
        shape = scored.shapes[kind]
        inside_ = [ok for s, ok in zip(scored.found, scored.covered, strict=True) if s.kind == kind]
        lost = [100 * shape.lost(loss, 0.0) for loss in (0.01, 0.05, 0.2)]
        shown = " | ".join(f"{value:.1f} %" for value in lost)
        lines.append(f"| {kind} | {what} | {shown} | {len(inside_)} | {np.mean(inside_):.0%} |")
    return "\n".join(lines)


def _accuracy_groups(scored: Accuracy) -> str:
    lines = []
    for name in [*sorted({s.group for s in scored.found}), None]:
        inside_ = [ok for s, ok in zip(scored.found, scored.covered, strict=True) if name in (None, s.group)]
        lines.append(f"| {name or '**all**'} | {len(inside_)} | {np.mean(inside_):.0%} |")
    return "\n".join(lines)


def _tokens() -> str:
    with (table.FOLDER / "wikitext2_tokens.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return "\n".join(f"| {r['tokenizer']} | {int(r['tokens']):,} | {r['source']} |" for r in rows)


def _effects(fitted: Fit) -> str:
    c = fitted.coefficients
    rows = [("weights: 5 to 4 bits, solved", c["w:b4"] + c.get("w:solved:b4", 0)),
            ("weights: 4 to 3 bits, solved", c["w:b3"] + c.get("w:solved:b3", 0)),
            ("weights: 4 to 3 bits, plain", c["w:b3"] + c.get("w:plain:b3", 0)),
            ("an octave of group", c["w:group"]), ("a whole row instead of its octaves", c["w:row"]),
            ("symmetric", c["w:symmetric"]), ("act-order", c["w:actorder"]),
            ("ten times the training tokens", c["w:trained"]),
            ("floating-point instead of integer activations (at 7B)", c["a:float"])]  # fmt: skip
    head = "Factors on the loss in nats, everything else equal:\n\n| effect | factor |\n|---|--:|\n"
    return head + "\n".join(f"| {name} | {np.exp(value):.2f} |" for name, value in rows)


def plot(by_group: list[Record], by_family: list[Record]) -> str:
    """Predicted against published (left), residuals on z (right), as deterministic SVG."""
    plt.rcParams["svg.hashsalt"] = "quantrecipe"
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    _scatter(left, by_group)
    _residuals(right, by_group, lambda r: r.z)
    figure.tight_layout()
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _scatter(axes: plt.Axes, records: list[Record]) -> None:
    for name in REGIMES:
        here = [r for r in records if r.regime == name]
        axes.plot([max(to_loss(r.z), 1e-4) for r in here], [max(to_loss(r.observation.z), 1e-4) for r in here],
                  ".", markersize=3, alpha=0.5, label=name, rasterized=True)  # fmt: skip
    axes.plot([1e-4, 14], [1e-4, 14], color="black", linewidth=0.7)
    axes.set(xscale="log", yscale="log", xlabel="predicted loss (nats), its sources left out",
             ylabel="published loss (nats)", title="Predicted against published")  # fmt: skip
    axes.legend(fontsize=7)


def _residuals(axes: plt.Axes, records: list[Record], x: Callable[[Record], float]) -> None:
    for name in REGIMES:
        here = [r for r in records if r.regime == name]
        axes.plot([x(r) for r in here], [r.error for r in here], ".", markersize=3, alpha=0.5, rasterized=True)
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set(xlabel="predicted z", ylabel="published z - predicted z", title="Residuals", ylim=(-5, 5))

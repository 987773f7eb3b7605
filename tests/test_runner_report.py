"""Verdict, report, plot, progress and meter, each on its own."""

from __future__ import annotations

import io
import json
import mmap
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from quantrecipe.runner.meter import Meter
from quantrecipe.runner.progress import JsonLog, Plain, Together
from quantrecipe.runner.progress_bar import Bar
from quantrecipe.runner.report.markdown import cell
from quantrecipe.runner.report.plot import layer_plot
from quantrecipe.runner.report.rows import worst_layers
from quantrecipe.runner.verdict import percent, sentence


def _layer(name: str, error: float, output: float | None = None) -> dict[str, Any]:
    return {"name": name, "relative_error": error, "output_error": output, "rows": 4, "columns": 4}


LAYERS = [_layer(f"h.{block}.{kind}", 0.01 * (block + 1)) for block in range(30) for kind in ("attn.q", "mlp.fc<1>")]


def _results(low: float | None, high: float | None, outcomes: list[str]) -> dict[str, Any]:
    value = 0.0 if low is None or high is None else (low + high) / 2
    return {
        "model": {"id": "m"},
        "size": {"original_file_bytes": 4_000_000, "file_bytes": 1_000_000},
        "measures": {"increase": {"value": value, "low": low, "high": high}},
        "gates": [{"name": f"g{i}", "outcome": outcome} for i, outcome in enumerate(outcomes)],
    }


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (
            _results(0.01, 0.02, ["pass", "pass"]),
            ["4.00 MB to 1.00 MB", "4.0 times", "rose by 1.50 %", "all 2 gates"],
        ),
        (_results(-0.01, 0.02, []), ["no loss can be told from noise", "no gates"]),
        (_results(0.01, 0.02, ["pass", "fail", "unsure"]), ["**fails** on `g1`"]),
        (_results(0.01, 0.02, ["unsure"]), ["**unsure** on `g0`"]),
        (_results(None, None, ["pass"]), ["too few windows", "passes** its gate"]),
        (_results(1e5, 1e6, []), ["a factor of"]),
    ],
)
def test_the_verdict_is_a_sentence(results: dict[str, Any], words: list[str]) -> None:
    found = sentence(results)
    assert found.endswith(".")
    for word in words:
        assert word in found


def test_percent_keeps_the_digits_that_matter() -> None:
    assert [percent(x) for x in (0.0012, 0.05, 0.5, 2.0)] == ["0.12 %", "5.00 %", "50.0 %", "200.0 %"]


def test_the_plot_is_svg_with_words_for_those_who_cannot_see_it() -> None:
    text = layer_plot(LAYERS)
    root = ET.fromstring(text)
    assert root.get("role") == "img"
    assert "60 layers" in text
    assert "h.29." in text
    assert "prefers-color-scheme: dark" in text
    assert len(re.findall("<polyline", text)) == 2
    assert "nan" not in text
    places = [float(x) for line in re.findall('points="([^"]*)"', text) for x in re.split("[ ,]", line)]
    assert min(places) > 0
    assert max(places) < 860


@pytest.mark.parametrize("layers", [[_layer("h.0.q", 0.0)], [_layer("lm_head", 0.1)], [_layer("h.0.q", 1e-9, 0.5)]])
def test_the_plot_of_little(layers: list[dict[str, Any]]) -> None:
    ET.fromstring(layer_plot(layers))


def test_the_worst_layers_come_first_by_what_was_seen() -> None:
    layers = [_layer("a", 0.9, 0.1), _layer("b", 0.1, 0.5), _layer("c", 0.3)]
    assert [layer["name"] for layer in worst_layers(layers)] == ["b", "c", "a"]


def test_cells_cannot_break_the_table() -> None:
    assert cell("a|b\n<script>`") == "a\\|b \\<script\\>\\`"


def test_plain_progress_is_lines() -> None:
    stream = io.StringIO()
    plain = Plain(stream, interval=0.0)
    plain.start("quantize", 4)
    plain.advance(2, block="h.1")
    plain.note("damping raised")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "quantize (4 blocks)"
    assert re.match(r"  2/4 blocks, .*/s, \d+ s left, block h\.1", lines[1])
    assert lines[2] == "  damping raised"


def test_json_log_is_one_object_a_line(tmp_path: Path) -> None:
    log = Together([JsonLog(tmp_path / "log.jsonl")])
    log.start("quantize", 2)
    log.advance(block="h.0")
    log.note("hello")
    log.close()
    log.close()
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "advance", "note", "end"]
    assert events[1]["done"] == 1
    assert events[1]["details"] == {"block": "h.0"}


def test_the_bar_shows_stage_and_note() -> None:
    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=120))
    bar.start("quantize", 2)
    bar.advance(block="h.0")
    bar.note("[not markup]")
    bar.start("evaluate")
    bar.close()
    assert "quantize" in stream.getvalue()
    assert "[not markup]" in stream.getvalue()


def test_the_meter_sees_a_peak_that_belongs_to_its_stage() -> None:
    meter = Meter()
    with meter.stage("large"), mmap.mmap(-1, 200 * 2**20) as block:  # not from the heap, where freed memory may lie
        block[::4096] = b"x" * len(block[::4096])
    with meter.stage("small"):
        pass
    large, small = meter.stages
    assert large.peak_memory is not None
    assert small.peak_memory is not None
    if large.exact:
        assert large.peak_memory - small.peak_memory > 150 * 2**20
    assert meter.peak == large.peak_memory

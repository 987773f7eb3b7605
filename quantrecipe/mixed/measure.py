"""What each unit loses under each of its options: measured on the model's weights and calibration text."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from quantrecipe.errors import RecipeError
from quantrecipe.mixed.measures.losses import (
    ALL,
    NOISE,
    QUIET_BITS,
    Effort,
    Options,
    anchor_of,
    representatives,
    scenario_name,
    tabulate,
)
from quantrecipe.mixed.measures.scenarios import Scenario
from quantrecipe.mixed.measures.survey import Order, survey
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.table import FILE, LossTable, cache_folder
from quantrecipe.mixed.units import Unit
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.identity import surroundings
from quantrecipe.plugins.contract import Progress

#: One calibration sequence in so many is kept from the Hessians, for KL.
HELD_BACK = 8
#: Tokens of a probe that a scenario may take, as a share of the calibration text's by scenario: with it all scenarios
#: together flow through the blocks for about the forward passes of one GPTQ run.
PASSES = 2.0
LEAST_PROBE, MOST_PROBE = 512, 8192
#: KL is looked at in every position or, where logits would cost more than the blocks, in every second.
STEP = 2


@dataclass(frozen=True, slots=True)
class Text:
    """calibration: int64 [sequences, tokens] for Hessians. probe: int64 [windows, length] for KL, none of them."""

    calibration: torch.Tensor
    probe: torch.Tensor

    @classmethod
    def split(cls, tokens: torch.Tensor, scenarios: int) -> Text:
        """Every eighth sequence to the probe, cut to as many tokens as so many scenarios allow.

        Raises RecipeError where there are fewer than two sequences.
        """
        if len(tokens) < 2:
            raise RecipeError("too few calibration sequences to measure", value=len(tokens), limit="at least 2")
        held = torch.zeros(len(tokens), dtype=torch.bool)
        held[HELD_BACK - 1 :: HELD_BACK] = True
        if not held.any():
            held[-1] = True
        length = tokens.shape[1]
        room = min(max(PASSES * 2 * tokens.numel() / max(scenarios, 1), LEAST_PROBE), MOST_PROBE)
        windows = max(round(room / length), 1)
        probe = tokens[held][:windows]
        return cls(tokens[~held], probe[:, : max(int(room), 2)])


def measure_losses(  # noqa: PLR0913, PLR0917
    folder: Path,
    units: Sequence[Unit],
    options: Options,
    calibration: torch.Tensor,
    effort: Effort,
    cache_dir: Path,
    progress: Progress,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> LossTable:
    """The table, from ``cache_dir`` where it was measured before; a run that was stopped there goes on.

    options: of each unit, by its name. calibration: int64 [sequences, tokens].
    """
    order = make_order(folder, units, options, calibration, effort, device, trust_remote_code)
    identity = surroundings(ModelFolder.open(folder), device, {"calibration tokens": calibration}) | {
        "effort": effort,
        "options": str(sorted((unit.name, [str(one) for one in options[unit.name]]) for unit in units)),
    }
    home = cache_folder(cache_dir, identity)
    known = LossTable.load(home, identity)
    if known is not None:
        progress.note(f"sensitivity: measured before, in {home / FILE}")
        return known
    began = time.perf_counter()
    table = LossTable(identity)
    rows, seconds = survey(order, home, progress)
    tabulate(table, rows, units, options, effort)
    table.seconds = max(seconds, time.perf_counter() - began)
    table.save(home)
    return table


def make_order(  # noqa: PLR0913, PLR0917
    folder: Path,
    units: Sequence[Unit],
    options: Options,
    calibration: torch.Tensor,
    effort: Effort,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> Order:
    """What an effort surveys."""
    scenarios = scenarios_of(units, options, effort)
    text = Text.split(calibration, len(scenarios))
    by_layer = {layer: _quantized(options[unit.name]) for unit in units for layer in unit.layers}
    solved = {"low": {}, "default": {name: representatives(found) for name, found in by_layer.items()}}
    return Order(
        folder, by_layer, scenarios, text.calibration, text.probe, solved.get(effort, by_layer),
        1 if effort == "high" else STEP, device, trust_remote_code,
    )  # fmt: skip


def scenarios_of(units: Sequence[Unit], options: Options, effort: Effort) -> tuple[Scenario, ...]:
    """low: all units at their anchors. default: each unit at its own as well. high: each under every option."""
    anchors = {unit: one for unit in units if (one := anchor_of(options[unit.name])) is not None}
    every = Scenario(ALL, {layer: one for unit, one in anchors.items() for layer in unit.layers})
    if effort == "low":
        return (every,)
    chosen = {unit: [one] if effort == "default" else _quantized(options[unit.name]) for unit, one in anchors.items()}
    alone = (_alone(unit, option) for unit, tried in chosen.items() for option in tried)
    return (every, *_noise(units, options), *alone)


def _noise(units: Sequence[Unit], options: Options) -> Iterator[Scenario]:
    """One unit near either end and in the middle, with a change too small to matter."""
    inside = [unit for unit in units if unit.block is not None]
    for place in sorted({0, len(inside) // 2, len(inside) - 1} if inside else ()):
        unit = inside[place]
        finest = max(_quantized(options[unit.name]), key=lambda one: one.facts.bits, default=None)
        if finest is not None and finest.facts.bits >= QUIET_BITS:
            yield Scenario(f"{NOISE}:{unit.block}", {unit.layers[0]: finest})


def _alone(unit: Unit, option: Option) -> Scenario:
    return Scenario(scenario_name(unit, option), dict.fromkeys(unit.layers, option))


def _quantized(options: Sequence[Option]) -> list[Option]:
    return [one for one in options if not one.keeps]

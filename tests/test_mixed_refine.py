"""Mixes measured and refined on a small random model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.mixed import refine as refinement
from quantrecipe.mixed.measure import make_order, measure_losses
from quantrecipe.mixed.mix import Measured, MixMeter
from quantrecipe.mixed.options import KEEP, Option
from quantrecipe.mixed.refine import choose_within, refine, uniform_within
from quantrecipe.mixed.sizes import Sizes
from quantrecipe.mixed.slopes import Space, scales_around
from quantrecipe.mixed.units import Unit, units_of
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from tests.families import make_model
from tests.native_jobs import Silent, tokens

OPTIONS = (KEEP, Option("w8a16", "gptq"), Option("w4a16-g32", "gptq"), Option("w2a16-g32", "gptq"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("llama-tied", tmp_path_factory.mktemp("mixes") / "model", torch.float32)


@dataclass
class Workplace:
    model: Path
    units: tuple[Unit, ...]
    options: dict[str, tuple[Option, ...]]
    sizes: Sizes
    space: Space
    calibration: torch.Tensor = field(default_factory=lambda: tokens(8, 32, seed=1))
    windows: torch.Tensor = field(default_factory=lambda: tokens(6, 32, seed=2))

    def meter(self, home: Path) -> MixMeter:
        return MixMeter(self.model, self.units, self.calibration, self.windows, home, Silent())


@pytest.fixture(scope="module")
def place(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    skeleton = Skeleton(ModelFolder.open(model))
    units = units_of(skeleton.linears())
    options = {unit.name: OPTIONS for unit in units}
    sizes = Sizes(skeleton, units, "compressed-tensors")
    table = measure_losses(
        model, units, options, tokens(8, 32, seed=1), "default", tmp_path_factory.mktemp("cache"), Silent()
    )
    pairs = {(unit.name, str(one)): sizes.option_bytes(unit, one, True) for unit in units for one in OPTIONS}
    return Workplace(model, units, options, sizes, Space(units, options, table.losses(), pairs))


def test_a_mix_is_measured_as_transformers_computes_it(place: Workplace, tmp_path: Path) -> None:
    import transformers

    from quantrecipe.modeling.plan import make_plan
    from quantrecipe.recipe import Recipe
    from tests.native_jobs import load_with_transformers, quantize

    chosen = {unit.name: OPTIONS[index % 3] for index, unit in enumerate(place.units)}
    found = place.meter(tmp_path / "home").measure(chosen)
    layers = {layer: chosen[unit.name] for unit in place.units for layer in unit.layers}
    groups = {
        one.scheme: {"targets": [name for name, other in layers.items() if other == one], **one.group()}
        for one in OPTIONS[1:3]
    }
    ignore = ["lm_head", *(name for name, one in layers.items() if one.keeps)]
    recipe = {"model": {"id": "x"}, "quantization": {"config_groups": groups, "ignore": ignore}}
    make_plan(Recipe.model_validate(recipe), Skeleton(ModelFolder.open(place.model)).linears())
    quantize(place.model, tmp_path / "out", groups, ignore=ignore, calibration=place.calibration)
    whole: Any = transformers.AutoModelForCausalLM.from_pretrained(place.model, dtype=torch.float32)
    with torch.inference_mode():
        before = torch.log_softmax(whole(place.windows).logits.double(), -1)[:, :-1]
        after = torch.log_softmax(load_with_transformers(tmp_path / "out")(place.windows).logits.double(), -1)[:, :-1]
    kl = (before.exp() * (before - after)).sum(-1).mean(-1)
    nll = -after.gather(-1, place.windows[:, 1:, None]).mean()
    assert found.kl == pytest.approx(kl.tolist(), rel=1e-2)
    assert found.perplexity == pytest.approx(math.exp(float(nll)), rel=1e-5)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert found.file_bytes == written == place.sizes.file_bytes(chosen)


def test_a_mix_is_measured_once(place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {unit.name: OPTIONS[2] for unit in place.units}
    first = place.meter(tmp_path).measure(chosen)
    monkeypatch.setattr(MixMeter, "_measure", lambda *_: pytest.fail("measured again"))
    assert place.meter(tmp_path).measure(chosen) == first


def test_refining_never_leaves_the_budget_nor_does_worse_than_uniform(place: Workplace, tmp_path: Path) -> None:
    uniform = {unit.name: OPTIONS[2] for unit in place.units}
    room = place.space.bytes(uniform) + 100
    start = choose_within(place.space, room)
    order = make_order(place.model, place.units, place.options, place.calibration, "default")
    found = refine(place.space, room, start, place.meter(tmp_path), order, 2, Silent())
    assert all(place.space.bytes(one.mix) <= room for one in found.trials)
    names = [one.name for one in found.trials]
    assert names[:2] == ["predicted best", "uniform w4a16-g32:gptq"]
    assert found.best.kl == min(one.kl for one in found.trials)
    assert any("predicted" in line for line in found.lines())


@dataclass
class Pretended:
    """A meter whose KL is known: some units lose more than they were predicted to."""

    space: Space
    truth: dict[str, float]
    home: Path
    seen: list[Any] = field(default_factory=list)

    def measure(self, mix: Any) -> Measured:
        self.seen.append(mix)
        kl = self.space.scaled(self.truth).predicted(mix)
        return Measured((kl,), (1.0,), (1.0,), 0, (0.0, 0.0))


def test_a_round_finds_what_the_units_truly_lose(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = {unit.name: 4.0 if index % 2 else 0.25 for index, unit in enumerate(place.units)}
    monkeypatch.setattr(refinement, "scales_around", lambda *_: truth)
    room = place.space.bytes({unit.name: OPTIONS[2] for unit in place.units})
    meter: Any = Pretended(place.space, truth, tmp_path)
    order: Any = None
    found = refine(place.space, room, choose_within(place.space, room), meter, order, 3, Silent())
    best = choose_within(place.space.scaled(truth), room)
    assert found.best.kl == pytest.approx(place.space.scaled(truth).predicted(best))


def test_scales_of_single_units_are_those_of_the_losses(place: Workplace, tmp_path: Path) -> None:
    """Around a mix that is all but whole, one more unit loses what it loses alone."""
    mix = {unit.name: KEEP for unit in place.units}
    order = make_order(place.model, place.units, place.options, place.calibration, "high")
    scales = scales_around(place.space, mix, order, tmp_path, Silent())
    assert set(scales) == {unit.name for unit in place.units}
    assert sorted(scales.values())[len(scales) // 2] == pytest.approx(1.0, rel=0.5)


def test_uniform_is_the_best_that_fits(place: Workplace) -> None:
    every = {one: place.space.bytes({unit.name: one for unit in place.units}) for one in OPTIONS}
    assert uniform_within(place.space, every[OPTIONS[1]]) == OPTIONS[1]
    assert uniform_within(place.space, every[OPTIONS[3]] - 1) is None

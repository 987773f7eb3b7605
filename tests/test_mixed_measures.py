"""Sensitivity measures against references written apart: float64 algebra, and KL by plain transformers."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.mixed.measure import Text, make_order, measure_losses
from quantrecipe.mixed.measures.losses import anchor_of, scenario_name
from quantrecipe.mixed.measures.scenarios import Scenario
from quantrecipe.mixed.measures.streams import Streams
from quantrecipe.mixed.measures.survey import Order, survey
from quantrecipe.mixed.options import KEEP, Option
from quantrecipe.mixed.table import Cell, LossTable
from quantrecipe.mixed.units import Unit, units_of
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from tests.families import make_model
from tests.native_jobs import Silent, quantize, tokens

COARSE, FINE = Option("w3a16-g32", "gptq"), Option("w4a16", "gptq")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("llama", tmp_path_factory.mktemp("mixed") / "model", torch.float32)


def _units(model: Path) -> tuple[Unit, ...]:
    return units_of(Skeleton(ModelFolder.open(model)).linears())


def _options(units: tuple[Unit, ...], tried: tuple[Option, ...] = (KEEP, COARSE, FINE)) -> dict[str, Any]:
    return {
        unit.name: tried if unit.in_blocks else tuple(Option(one.scheme, "rtn") for one in tried if not one.keeps)
        for unit in units
    }


def _rounded(weight: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Symmetric round to nearest, the scale max|w| / ((2^b - 1) / 2) in fp32: the formula, element by element."""
    out = torch.empty_like(weight, dtype=torch.float64)
    for row, start in itertools.product(range(len(weight)), range(0, weight.shape[1], group)):
        part = weight[row, start : start + group]
        scale = part.abs().max() * 2 / (2**bits - 1)
        codes = torch.round(part / scale).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        out[row, start : start + group] = codes.double() * scale.double()
    return out


def _inputs(model: Path, layer: str, ids: torch.Tensor) -> torch.Tensor:
    """What reaches a layer of the original, by plain transformers, fp64 [tokens, K]."""
    import transformers

    whole: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    seen: list[torch.Tensor] = []
    whole.get_submodule(layer).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        whole(ids)
    return seen[0].flatten(0, 1).double()


def test_cheap_errors_are_those_of_float64_algebra(model: Path, tmp_path: Path) -> None:
    units = _units(model)
    order = make_order(model, units, _options(units), tokens(8, 32, seed=3), "default")
    rows = {(row.measure, row.layer, row.option): row.value for row in survey(order, tmp_path, Silent())[0]}
    layer = "model.layers.1.mlp.down_proj"
    weight = ModelFolder.open(model).tensor(f"{layer}.weight")
    x = _inputs(model, layer, order.calibration)
    H = 2 / len(x) * x.t() @ x
    error = weight.double() - _rounded(weight, 3, 32)
    assert rows["weight", layer, str(COARSE)] == pytest.approx(float(error.square().sum()), rel=1e-4)
    assert rows["diagonal", layer, str(COARSE)] == pytest.approx(
        float((error.square() * H.diagonal()).sum()), rel=1e-4
    )
    whole = float(torch.trace(weight.double() @ H @ weight.double().t()))
    assert rows["hessian", layer, ""] == pytest.approx(whole, rel=1e-3)
    rounded = float(torch.trace(error @ H @ error.t()))
    assert rows["hessian", layer, str(COARSE)] < rounded  # GPTQ's objective, which rounding does not look at
    solved = _gptq_weight(model, layer, order, tmp_path / "gptq")
    energy = float(torch.trace(solved @ H @ solved.t()))
    assert rows["hessian", layer, str(COARSE)] == pytest.approx(energy, rel=1e-3)


def _gptq_weight(model: Path, layer: str, order: Order, out: Path) -> torch.Tensor:
    """The error that the backend's own GPTQ run leaves in a layer that alone is quantized, fp64 [N, K]."""
    from quantrecipe.runner.quantized import open_dequantized

    others = [
        info.name for info in Skeleton(ModelFolder.open(model)).linears() if info.name not in (layer, "lm_head")
    ]
    ignore = ["lm_head", *(name for name in others if "embed" not in name)]
    quantize(model, out, {"main": COARSE.group()}, ignore=ignore, calibration=order.calibration)
    folder, _ = open_dequantized(out, torch.float32)
    return ModelFolder.open(model).tensor(f"{layer}.weight").double() - folder.tensor(f"{layer}.weight").double()


def test_kl_is_that_of_plain_transformers(model: Path, tmp_path: Path) -> None:
    import transformers

    units = _units(model)
    layers = [
        "model.layers.0.self_attn.o_proj",
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
        "lm_head",
    ]
    wanted = {layers[0]: COARSE, layers[1]: FINE, layers[2]: FINE, layers[3]: Option("w3a16-g32", "rtn")}
    probe = tokens(3, 24, seed=9)
    scenarios = (
        Scenario("all four", wanted),
        Scenario("less one", {name: wanted[name] for name in layers[:3]}, "all four"),
    )
    by_layer = {name: [one] for name, one in wanted.items()}
    order = Order(model, by_layer, scenarios, tokens(6, 32, seed=3), probe, by_layer)
    rows, _ = survey(order, tmp_path, Silent())
    found = {row.layer: row.value for row in rows if row.measure == "kl"}
    whole: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.inference_mode():
        before = torch.log_softmax(whole(probe).logits.double(), -1)
        for count, name in ((3, "less one"), (4, "all four")):
            for layer in layers[:count]:
                error = _error_of(order, layer, tmp_path)
                whole.get_submodule(layer).weight.data = ModelFolder.open(model).tensor(f"{layer}.weight") - error
            after = torch.log_softmax(whole(probe).logits.double(), -1)
            kl = (before.exp() * (before - after)).sum(-1)[:, :-1].mean()
            assert found[name] == pytest.approx(float(kl), rel=1e-3)
    assert units  # the same layers as the units name


def _error_of(order: Order, layer: str, tmp_path: Path) -> torch.Tensor:
    """By a run of the backend's for that layer alone; the head by the formula."""
    if layer == "lm_head":
        weight = ModelFolder.open(order.folder).tensor("lm_head.weight")
        return (weight.double() - _rounded(weight, 3, 32)).float()
    out = tmp_path / layer
    if not out.exists():
        [option] = order.options[layer]
        others = [info.name for info in Skeleton(ModelFolder.open(order.folder)).linears() if info.name != layer]
        ignore = [name for name in others if "embed" not in name]
        quantize(order.folder, out, {"main": option.group()}, ignore=ignore, calibration=order.calibration)
    from quantrecipe.runner.quantized import open_dequantized

    folder, _ = open_dequantized(out, torch.float32)
    return ModelFolder.open(order.folder).tensor(f"{layer}.weight") - folder.tensor(f"{layer}.weight")


@pytest.mark.parametrize("effort", ["low", "default", "high"])
def test_losses_fall_with_bits_and_whole_layers_lose_nothing(model: Path, tmp_path: Path, effort: Any) -> None:
    units = _units(model)
    table = measure_losses(model, units, _options(units), tokens(9, 32, seed=3), effort, tmp_path, Silent())
    losses = table.losses()
    for unit in units:
        coarse, fine = (str(one) for one in _options(units)[unit.name][-2:])
        assert losses[unit.name, coarse] > 0
        assert losses[unit.name, coarse] != losses[unit.name, fine]
        if unit.in_blocks:
            assert losses[unit.name, str(KEEP)] == 0
    if effort == "high":
        assert losses[units[0].name, str(COARSE)] == table.losses("kl")[units[0].name, str(COARSE)]


def test_a_table_that_was_measured_is_read_back(model: Path, tmp_path: Path) -> None:
    units = _units(model)
    ask = (model, units, _options(units), tokens(4, 16, seed=3), "low", tmp_path)
    first, second = Silent(), Silent()
    assert measure_losses(*ask, first).rows() == measure_losses(*ask, second).rows()
    assert not any("measured before" in note for note in first.notes)
    assert any("measured before" in note for note in second.notes)


class _Killed(Exception):
    pass


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_stopped_survey_goes_on_to_the_same_figures(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    units = _units(model)
    order = make_order(model, units, _options(units), tokens(8, 16, seed=3), "default")
    unbroken, _ = survey(order, _folder(tmp_path / "unbroken"), Silent())
    scratch = _folder(tmp_path / "broken")
    count = 0
    write = Streams.write.__func__  # type: ignore[attr-defined]

    def failing(cls: Any, folder: Path, place: int, pieces: Any, device: str) -> Any:
        nonlocal count
        found = write(cls, folder, place, pieces, device)  # the file is there, the journal's line is not
        if count == writes:
            raise _Killed
        count += 1
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Streams, "write", classmethod(failing))
        with pytest.raises(_Killed):
            survey(order, scratch, Silent())
    assert survey(order, scratch, Silent())[0] == unbroken
    assert not list(scratch.glob("streams-*"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_only_one_block_and_one_batch_are_in_memory(model: Path, tmp_path: Path) -> None:
    """While a block is measured, every other block's weights are on the meta device."""
    units = _units(model)
    order = make_order(model, units, _options(units), tokens(8, 16, seed=3), "high")
    resident: list[int] = []

    class Watching(Silent):
        def advance(self, amount: int = 1, **details: Any) -> None:
            import gc

            gc.collect()
            alive = [one for one in gc.get_objects() if isinstance(one, torch.nn.Parameter)]
            resident.append(sum(one.numel() for one in alive if one.device.type == "cpu" and one.shape == (128, 64)))

    survey(order, tmp_path, Watching())
    assert resident and max(resident) <= 2 * 2 * 128 * 64


def test_the_anchor_is_nearest_to_three_bits_in_groups_of_64() -> None:
    names = ["w2a16-g64", "w3a16", "w3a16-g128-asym", "w3a16-g128", "w4a16-g64"]
    found = anchor_of([KEEP, *(Option(name, "gptq") for name in names)])
    assert found is not None and found.scheme == "w3a16-g128"
    assert anchor_of([KEEP]) is None


def test_probe_and_calibration_share_no_sequence() -> None:
    given = torch.arange(20 * 40).reshape(20, 40)
    text = Text.split(given, 1000)
    assert not set(text.probe.flatten().tolist()) & set(text.calibration.flatten().tolist())
    assert len(text.calibration) == 18


def test_a_table_refuses_a_measure_that_was_not_taken() -> None:
    from quantrecipe.errors import OutputError

    table = LossTable({})
    table.put("weight", Cell("a", "b"), 1.0)
    with pytest.raises(OutputError, match="not measured"):
        table.losses("kl")


def test_scenarios_are_named_after_unit_and_option(model: Path) -> None:
    unit = _units(model)[0]
    assert scenario_name(unit, COARSE) == f"{unit.name}=w3a16-g32:gptq"


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.native_jobs import Silent, tokens
from tests.test_mixed_measures import _options, _units
from quantrecipe.mixed.measure import measure_losses

class Dying(Silent):
    def advance(self, amount=1, **details):
        if details.get("block") == "model.layers.1":
            os.kill(os.getpid(), signal.SIGKILL)

model = Path(sys.argv[1])
units = _units(model)
measure_losses(model, units, _options(units), tokens(8, 16, seed=3), "default", Path(sys.argv[2]), Dying())
"""


def test_a_killed_process_leaves_what_the_next_one_goes_on_from(model: Path, tmp_path: Path) -> None:
    units = _units(model)
    ask = (model, units, _options(units), tokens(8, 16, seed=3), "default")
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", KILLED, str(model), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL, done.stderr
    [journal] = (tmp_path / "killed").glob("*/journal")
    assert journal.read_text().count('"kind":"block"') == 2
    looked: list[str] = []

    class Watching(Silent):
        def advance(self, amount: int = 1, **details: Any) -> None:
            looked.extend(details.values())

    resumed = measure_losses(*ask, tmp_path / "killed", Watching())
    assert [name for name in looked if name.startswith("model.layers")] == ["model.layers.2"]
    assert resumed.rows() == measure_losses(*ask, tmp_path / "unbroken", Silent()).rows()

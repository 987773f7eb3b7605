"""Large matrices are worked on by slices of rows: the same codes, errors and energies."""

from __future__ import annotations

import pytest
import torch

from quantrecipe.plugins.native import qparams
from quantrecipe.plugins.native.factor import Setting
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.methods.gptq import gptq
from quantrecipe.plugins.native.methods.rtn import rtn
from quantrecipe.plugins.native.qparams import Quantized, Storage, by_rows
from quantrecipe.plugins.native.record import output_error, relative_error
from quantrecipe.schemes import QuantizationArgs

F32 = Storage(torch.float32, torch.float32)
ROWS, COLUMNS = 37, 64


def _weight() -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))


def _inputs() -> torch.Tensor:
    return torch.randn(200, COLUMNS, generator=torch.Generator().manual_seed(2))


def _args(group: int | None, symmetric: bool = False) -> QuantizationArgs:
    strategy = "group" if group else "channel"
    return QuantizationArgs(num_bits=4, strategy=strategy, group_size=group, symmetric=symmetric)


@pytest.fixture(params=[COLUMNS, 5 * COLUMNS + 3, 10**9])
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qparams, "SLICE", request.param)


def _equal(one: Quantized, other: Quantized) -> None:
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.grid.scale, other.grid.scale)
    assert one.grid.zero is other.grid.zero is None or torch.equal(one.grid.zero, other.grid.zero)  # type: ignore[arg-type]


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_round_to_nearest_by_slices_is_that_of_the_whole(group: int | None, symmetric: bool) -> None:
    args = _args(group, symmetric)
    _equal(by_rows(lambda part: rtn(part, args, F32), _weight(), args), rtn(_weight(), args, F32))  # type: ignore[arg-type]


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize("sorts", [True, False])
def test_gptq_by_slices_loses_what_it_loses_as_a_whole(group: int | None, sorts: bool) -> None:
    """Products of other shapes are summed otherwise, so that a code may tip over; hardly any does."""
    args, hessian = _args(group), Hessian(COLUMNS)
    hessian.add(_inputs())
    factor = hessian.factor(Setting(0.01, sorts=sorts), "layer", print)
    whole = gptq(_weight(), factor, args, F32)
    sliced = by_rows(lambda part: gptq(part, factor, args, F32), _weight(), args)
    assert isinstance(sliced, Quantized)
    torch.testing.assert_close(sliced.grid.scale, whole.grid.scale)
    assert float((sliced.codes != whole.codes).float().mean()) < 0.01
    lost = [output_error(_weight(), one.served(F32, torch.float32), hessian) for one in (sliced, whole)]
    assert lost[0] == pytest.approx(lost[1], rel=1e-3)


@pytest.mark.usefixtures("slices")
def test_one_scale_for_all_is_found_from_all() -> None:
    args = QuantizationArgs(num_bits=8, strategy="tensor")
    assert by_rows(lambda part: rtn(part, args, F32), _weight(), args).grid.scale.shape == (1, 1)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("slices")
def test_errors_are_those_of_the_formula() -> None:
    weight, inputs = _weight(), _inputs()
    served = rtn(weight, _args(16), F32).served(F32, torch.float32)
    hessian = Hessian(COLUMNS)
    hessian.add(inputs)
    X, W, Q = inputs.double(), weight.double(), served.double()
    assert relative_error(weight, served) == pytest.approx(float((W - Q).norm() / W.norm()), rel=1e-5)
    wanted = float((X @ (W - Q).t()).norm() / (X @ W.t()).norm())
    assert output_error(weight, served, hessian) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("strategy", ["tensor", "channel", "group"])
def test_what_is_served_does_not_depend_on_slices(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    args = QuantizationArgs(num_bits=8, strategy=strategy, group_size=16 if strategy == "group" else None)
    found = rtn(_weight(), args, F32)
    sliced = found.served(F32, torch.bfloat16)
    monkeypatch.setattr(qparams, "SLICE", 10**9)
    assert torch.equal(sliced, found.served(F32, torch.bfloat16))

"""The GPTQ solver against the paper's equations in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.factor import Factor, Setting, factorize_
from quantrecipe.plugins.native.hessian import Hessian, add_lower_product
from quantrecipe.plugins.native.methods import gptq as solver
from quantrecipe.plugins.native.methods.rtn import rtn_integers as rtn
from quantrecipe.plugins.native.qparams import Storage, code_range, dequantize, make_grid
from quantrecipe.recipe import GptqMethod
from quantrecipe.schemes import QuantizationArgs
from tests.reference import gptq as reference

F32 = Storage(torch.float32, torch.float32)
ROWS, COLUMNS, TOKENS = 24, 96, 400
ORDERS = (None, "static", "group_aware")
PER_CHANNEL = QuantizationArgs(num_bits=4, strategy="channel")


def inputs(seed: int = 0, dead: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(TOKENS, COLUMNS, generator=generator) @ torch.randn(COLUMNS, COLUMNS, generator=generator)
    x = x * torch.linspace(0.2, 3, COLUMNS)[torch.randperm(COLUMNS, generator=generator)]
    if dead:
        x[:, [3, 50]] = 0
    return x


def weights(seed: int = 1) -> torch.Tensor:
    return torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed))


def hessian_of(x: torch.Tensor) -> Hessian:
    hessian = Hessian(x.shape[1])
    for chunk in x.split(64):
        hessian.add(chunk)
    return hessian


def factor_of(x: torch.Tensor, args: QuantizationArgs, actorder: str | None) -> Factor:
    method = GptqMethod.model_validate({"name": "gptq", "actorder": actorder})
    return hessian_of(x).factor(Setting.of(method, args), "layer", print)


def ours(
    w: torch.Tensor, x: torch.Tensor, args: QuantizationArgs, actorder: str | None, block: int = 128
) -> torch.Tensor:
    result = solver.gptq(w, factor_of(x, args, actorder), args, F32, block)
    return dequantize(result.codes, result.grid)


def order_of(h: np.ndarray, size: int, actorder: str | None) -> list[int]:
    """Column after column as the papers take them."""
    falling = [int(i) for i in np.argsort(-np.diag(h), kind="stable")]
    if actorder == "static":
        return falling
    if actorder is None:
        return sorted(falling)
    groups = list(dict.fromkeys(column // size for column in falling))  # by the greatest of each
    return [column for group in groups for column in falling if column // size == group]


def theirs(w: torch.Tensor, x: torch.Tensor, args: QuantizationArgs, actorder: str | None) -> np.ndarray:
    """The paper's loop in float64, with grids written out here."""
    h = reference.hessian(x.numpy(), 0.01)
    size = args.group_size or COLUMNS
    low, high = code_range(args.num_bits)
    grids: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def grid_of(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        least, most = part.min(1).clip(max=0), part.max(1).clip(min=0)
        if args.symmetric:
            s = np.maximum(-least, most) / ((2**args.num_bits - 1) / 2)
            return s, np.zeros_like(s)
        s = (most - least) / (2**args.num_bits - 1)
        return s, np.round(low - least / s).clip(low, high)

    def nearest(column: np.ndarray, index: int, now: np.ndarray) -> np.ndarray:
        g = index // size
        if g not in grids:
            source = w.numpy().astype(np.float64) if actorder == "static" or args.strategy != "group" else now
            grids[g] = grid_of(source[:, g * size : (g + 1) * size])
        s, z = grids[g]
        return (np.clip(np.round(column / s) + z, low, high) - z) * s

    return reference.solve(w.numpy(), h, order_of(h, size, actorder), nearest)


@pytest.mark.parametrize("actorder", ORDERS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group", [None, 16, 32])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_equals_the_papers_equations(bits: int, group: int | None, symmetric: bool, actorder: str | None) -> None:
    strategy = "group" if group else "channel"
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy=strategy, group_size=group)
    w, x = weights(), inputs()
    got, want = ours(w, x, args, actorder).double().numpy(), theirs(w, x, args, actorder)
    # A weight half way between two codes may fall either way in fp32; then all after it differ a little.
    same_rows = np.isclose(got, want, atol=1e-4).all(1)
    assert same_rows.mean() >= (0.75 if bits == 8 else 0.9)
    loss = [np.linalg.norm(x.numpy() @ (w.numpy() - q).T) for q in (got, want)]
    assert loss[0] == pytest.approx(loss[1], rel=2e-2)


def test_dead_columns_round_to_nearest_and_touch_nobody() -> None:
    args = QuantizationArgs(num_bits=4, strategy="group", group_size=16)
    w, x = weights(), inputs(dead=True)
    got, want = ours(w, x, args, "static"), theirs(w, x, args, "static")
    nearest = rtn(w, args, F32)
    assert torch.equal(got[:, [3, 50]], dequantize(nearest.codes, nearest.grid)[:, [3, 50]])
    assert np.isclose(got.numpy(), want, atol=1e-4).all(1).mean() >= 0.9


@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("actorder", ORDERS)
def test_block_size_does_not_matter(actorder: str | None, group: int | None) -> None:
    args = QuantizationArgs(num_bits=4, strategy="group" if group else "channel", group_size=group)
    results = [ours(weights(), inputs(), args, actorder, block) for block in (1, 7, 32, 128)]
    for other in results[1:]:
        assert torch.isclose(other, results[0], atol=1e-4).float().mean() > 0.995


def test_better_than_rounding_to_nearest() -> None:
    args = QuantizationArgs(num_bits=3, strategy="group", group_size=32)
    w, x = weights(), inputs()
    nearest = rtn(w, args, F32)
    loss = dict.fromkeys(ORDERS, 0.0)
    for actorder in loss:
        loss[actorder] = float((x @ (w - ours(w, x, args, actorder)).t()).norm())
    plain = float((x @ (w - dequantize(nearest.codes, nearest.grid)).t()).norm())
    assert max(loss.values()) < 0.8 * plain


def test_compiled_loop_equals_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    args = QuantizationArgs(num_bits=4, symmetric=False, strategy="group", group_size=16)
    compiled = ours(weights(), inputs(), args, "static", 32)
    monkeypatch.setattr(solver, "compiled_columns", solver.eager_columns)
    assert torch.isclose(ours(weights(), inputs(), args, "static", 32), compiled, atol=1e-4).float().mean() > 0.995


@pytest.mark.parametrize("columns", [1, 3, 30, 65])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hessian_is_the_sum_of_outer_products(columns: int, dtype: torch.dtype) -> None:
    x = torch.randn(200, columns, generator=torch.Generator().manual_seed(2)).to(dtype)
    hessian = Hessian(columns)
    for chunk in x.split(37):
        hessian.add(chunk.unsqueeze(0))
    want = 2 * x.double().t() @ x.double() / 200
    tolerance = 1e-5 if dtype == torch.float32 else 4e-3
    assert torch.allclose(hessian.matrix().double(), want, rtol=tolerance, atol=tolerance)
    assert torch.equal(hessian.matrix(), hessian.matrix().t())


def test_factor_is_the_upper_cholesky_factor_of_the_inverse() -> None:
    x = inputs()
    h = reference.hessian(x.numpy(), 0.01)
    want = np.linalg.cholesky(np.linalg.inv(h)).T
    assert np.allclose(factor_of(x, PER_CHANNEL, None).U.triu().numpy(), want, rtol=1e-3, atol=1e-5)


def test_one_hessian_serves_settings_in_turn_and_comes_back_whole() -> None:
    x, w = inputs(dead=True), weights()
    groups = QuantizationArgs(num_bits=4, strategy="group", group_size=16)
    hessian, want = hessian_of(x), 2 * x.double().t() @ x.double() / TOKENS
    for actorder in (*ORDERS, *reversed(ORDERS)):
        setting = Setting.of(GptqMethod.model_validate({"name": "gptq", "actorder": actorder}), groups)
        got = hessian.factor(setting, "layer", print)
        alone = factor_of(x, groups, actorder)
        assert torch.equal(got.U.triu(), alone.U.triu())
        energy = float(torch.trace(w.double() @ want @ w.double().t()))
        assert hessian.energy(w) == pytest.approx(energy, rel=1e-5)
    assert torch.allclose(hessian.matrix().double(), want, rtol=1e-5, atol=1e-5)


def test_dampening_is_raised_and_said() -> None:
    said: list[str] = []
    H = torch.full((8, 8), 4.0) - 0.5 * torch.eye(8)
    assert factorize_(H, H.diagonal().clone(), 0.01, "layer.7", said.append) > 0.01
    assert said and "layer.7" in said[0] and "dampening" in said[0]
    assert torch.isfinite(H).all()


def test_nan_activation_names_the_layer() -> None:
    hessian = Hessian(4)
    hessian.add(torch.tensor([[1.0, float("nan"), 0, 0]]))
    with pytest.raises(BackendError, match=r"model\.layers\.0\.fc1"):
        hessian.factor(Setting(0.01, sorts=False), "model.layers.0.fc1", print)


def test_product_leaves_what_is_above_the_strips_alone() -> None:
    lower = torch.zeros(8, 8)
    add_lower_product(lower, torch.ones(2, 8))
    assert torch.equal(lower.tril(), torch.full((8, 8), 2.0).tril())


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 130), (3, 128)])
def test_any_size(shape: tuple[int, int]) -> None:
    args = QuantizationArgs(num_bits=4, strategy="channel")
    w = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    x = torch.randn(64, shape[1], generator=torch.Generator().manual_seed(6))
    result = solver.gptq(w, factor_of(x, args, "static"), args, F32)
    assert result.codes.shape == shape
    assert make_grid(w, args, F32).scale.shape == (shape[0], 1)


@pytest.mark.parametrize("block", [128, 320])
@pytest.mark.parametrize("actorder", ORDERS)
def test_the_operator_of_a_gpu_takes_the_same_codes(
    actorder: str | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's way through the operator gptq_block, here with its CPU implementation; 32 columns at once."""
    x, w = inputs(), weights()
    args = QuantizationArgs(num_bits=3, strategy="group", group_size=48)
    expected = ours(w, x, args, actorder, block)
    monkeypatch.setattr(solver, "solver", lambda device: (solver.kernel_columns, 32))
    found = ours(w, x, args, actorder, block)
    assert torch.isclose(found, expected, atol=1e-4).float().mean() > 0.99  # sums in another order break ties


def test_without_a_compiler_a_gpu_gets_the_slow_loop_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise BackendError("CUDA kernels need NVRTC and cuda.core")

    monkeypatch.setattr("quantrecipe.kernels.compile.nvrtc_version", missing)
    solver.kernels_compile.cache_clear()
    with pytest.warns(UserWarning, match="GPTQ takes its slow loop: CUDA kernels need NVRTC"):
        assert solver.solver("cuda") == (solver.eager_columns, None)
    solver.kernels_compile.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("actorder", ORDERS)
def test_a_gpu_finds_the_codes_of_the_cpu(actorder: str | None) -> None:
    x, w = inputs(), weights()
    args = QuantizationArgs(num_bits=4, symmetric=False, strategy="group", group_size=16)
    factor = factor_of(x, args, actorder)
    order = None if factor.order is None else factor.order.cuda()
    moved = Factor(factor.U.cuda(), order, factor.dampening, factor.dead, factor.group_size)
    found = solver.gptq(w.cuda(), moved, args, F32)
    codes = solver.gptq(w, factor, args, F32).codes
    assert (found.codes.cpu() == codes).float().mean() > 0.99  # other sums break ties otherwise

"""HQQ, AWQ's clipping, FastGEMM's clipping and OliVe's thresholds against their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantrecipe.plugins.native.methods.awq_clip import clipped_grid
from quantrecipe.plugins.native.methods.hqq import hqq, pulled, solve_zero
from quantrecipe.plugins.native.methods.odyssey import learned_clipping
from quantrecipe.plugins.native.methods.olive import olive
from quantrecipe.plugins.native.qparams import Storage, make_grid, spans
from quantrecipe.recipe_methods import AwqClipMethod, HqqMethod, OdysseyMethod, OliveMethod
from quantrecipe.schemes import QuantizationArgs
from tests.reference import methods as reference

F32 = Storage(torch.float32, torch.float32)
REAL_ZEROS = Storage(torch.float32, torch.float32, whole_zeros=False)


def weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """With a heavy tail, so that clipping and robust zeros have something to gain."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator)
    return w * (1 + 5 * (torch.rand(rows, columns, generator=generator) > 0.97))


def inputs(tokens: int, columns: int, seed: int = 1) -> torch.Tensor:
    """Correlated, of unlike sizes."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator) / columns**0.5
    seen: torch.Tensor = torch.randn(tokens, columns, generator=generator) @ mix
    return seen * torch.rand(columns, generator=generator)


def asymmetric(bits: int) -> QuantizationArgs:
    return QuantizationArgs(num_bits=bits, symmetric=False, group_size=32)


@pytest.mark.parametrize("p", [0.4, 0.7, 1.0])
def test_hqq_shrinks_by_the_generalized_soft_threshold(p: float) -> None:
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)
    taken = pulled(x, x.abs(), x.abs().pow(p - 1), torch.tensor(0.1))
    assert np.allclose((x - taken).numpy(), reference.shrink(x.numpy(), 10.0, p), atol=1e-12)


@pytest.mark.parametrize("start", ["least", "rounded"])
@pytest.mark.parametrize(("bits", "p"), [(2, 0.7), (3, 0.7), (4, 0.7), (4, 1.0)])
def test_hqq_zero_points_are_the_half_quadratic_turns(bits: int, p: float, start: str) -> None:
    """Compared by the norm that is reached: it is flat between two weights, so zeros may tie."""
    w, args = weights(12, 64), asymmetric(bits)
    grid = make_grid(w, args, F32)
    assert grid.zero is not None
    W, scale = spans(w, args).double(), grid.scale.double()
    zero = grid.zero.double() if start == "rounded" else -(2 ** (bits - 1)) - W.amin(-1) / scale
    found = solve_zero(W, scale.unsqueeze(-1), zero.unsqueeze(-1), bits, HqqMethod(name="hqq", p=p)).squeeze(-1)
    for row, g in np.ndindex(12, 2):
        span, s = W[row, g].numpy(), float(scale[row, g])
        _, want = reference.hqq_zero(span, s, float(zero[row, g]), bits, reference.HalfQuadratic(p))
        reached = (np.abs(span - reference.asymmetric(span, s, float(found[row, g]), bits)) ** p).sum()
        assert reached == pytest.approx(want, rel=1e-9)
    assert int((found != zero).sum()) > 8  # it is not where the turns began that was found


#: Mean |W - W_q|^0.7 that hqq 0.2.8 reaches on ``weights(64, 256)``, groups of 64, fp32 scales and zeros, by bits.
#: Quantizer.quantize(W, nbits=bits, group_size=64, axis=1, device="cpu", compute_dtype=torch.float32)
HQQ_LIBRARY = {2: 0.70914, 3: 0.39535, 4: 0.23266}


@pytest.mark.parametrize("bits", HQQ_LIBRARY)
def test_hqq_loses_no_more_than_its_authors_library(bits: int) -> None:
    w, args = weights(64, 256), QuantizationArgs(num_bits=bits, symmetric=False, group_size=64)
    served = hqq(w, args, REAL_ZEROS, HqqMethod(name="hqq")).served(F32, torch.float32)
    assert float((w - served).abs().pow(0.7).mean()) <= HQQ_LIBRARY[bits]


def test_hqq_stores_the_solved_zero_where_it_lowers_the_norm() -> None:
    w, args = weights(8, 64), asymmetric(3)
    plain, found = make_grid(w, args, F32), hqq(w, args, REAL_ZEROS, HqqMethod(name="hqq")).grid
    assert plain.zero is not None and found.zero is not None
    assert torch.equal(found.scale, plain.scale)
    changed = 0
    for row, g in np.ndindex(8, 2):
        span, s = spans(w, args)[row, g].double().numpy(), float(plain.scale[row, g])
        zeros = float(found.zero[row, g]), float(plain.zero[row, g])
        norms = [(np.abs(span - reference.asymmetric(span, s, zero, 3)) ** 0.7).sum() for zero in zeros]
        assert zeros[0] == zeros[1] or norms[0] < norms[1]
        changed += zeros[0] != zeros[1]
    assert changed > 8


@pytest.mark.parametrize(("bits", "size"), [(3, 32), (4, 32), (4, 64)])
def test_awq_clips_each_group_where_its_output_loses_least(bits: int, size: int) -> None:
    """Ranges cut on one side: one cut on both ends at half a step, where fp32 and float64 round either way."""
    method = AwqClipMethod(name="awq-clip")
    w, x = weights(10, 64), inputs(50, 64)
    w = torch.where(w < 0, 0.1 * w, w)
    args = QuantizationArgs(num_bits=bits, symmetric=False, group_size=size)
    found = clipped_grid(w, 2 * x.T @ x / len(x), args, F32, method).scale
    for row, g in np.ndindex(10, 64 // size):
        part = slice(g * size, (g + 1) * size)
        span, seen = w[row, part].double().numpy(), x[:, part].double().numpy()
        want = reference.awq_scale(span, seen, bits, method.grid, method.max_shrink)
        assert float(found[row, g]) == pytest.approx(want, rel=1e-5)
    assert bool((found < make_grid(w, args, F32).scale).any())


@pytest.mark.parametrize("groups", [1, 2])
def test_fastgemms_clipping_is_adam_on_the_output_error(groups: int) -> None:
    method = OdysseyMethod(name="odyssey", steps=40)
    w, x = weights(6, 64), inputs(80, 64)
    H = 2 * x.T @ x / len(x)
    args = QuantizationArgs(num_bits=4, group_size=64 // groups)
    found = learned_clipping(w, H, args, F32, method).scale
    want = reference.learned_scales(w.double(), H.double(), groups, 40, method.learning_rate)
    assert torch.allclose(found.double(), want, rtol=2e-3)
    assert bool((found < 0.99 * make_grid(w, args, F32).scale).any())


@pytest.mark.parametrize("grid", [8, 50])
def test_olive_takes_the_threshold_of_least_error(grid: int) -> None:
    w = weights(10, 64)
    args = QuantizationArgs(num_bits=4, group_size=32)
    found = olive(w, args, F32, OliveMethod(name="olive", grid=grid))
    served = found.served(F32, torch.float32).double().numpy()
    for row, g in np.ndindex(10, 2):
        part = slice(g * 32, (g + 1) * 32)
        scale, values = reference.olive_threshold(w[row, part].double().numpy(), grid)
        assert float(found.scale[row, g]) == pytest.approx(scale, rel=1e-5)
        assert np.allclose(served[row, part], values, atol=1e-5)

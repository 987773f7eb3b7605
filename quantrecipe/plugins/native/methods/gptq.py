"""GPTQ (Frantar et al., arXiv:2210.17323): round one column, spread its error over those still to come."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.factor import Factor
from quantrecipe.plugins.native.qparams import Grid, Quantized, Storage, code_range, make_grid
from quantrecipe.schemes import QuantizationArgs

KERNEL_COLUMNS = 128  # kernels/csrc/gptq_block.cu


def gptq(
    weight: torch.Tensor, factor: Factor, args: QuantizationArgs, storage: Storage, block_size: int = 128
) -> Quantized:
    """Quantize fp32 weight [N, K] given the factor of its inputs' inverse Hessian.

    Groups that the factor's order keeps whole (no act-order, or the group-aware one) get their scale when their
    first column is reached, from the weights as compensated by then (section 4, "grouping"). Where act-order
    scatters them (``static``), they keep their place and their scales come from the original weights.
    """
    if args.strategy == "group" and (factor.order is None or factor.group_size):
        return _solve_by_group(weight, factor, args, storage, block_size)
    return gptq_on_grid(weight, factor, args, make_grid(weight, args, storage), block_size)


def gptq_on_grid(
    weight: torch.Tensor, factor: Factor, args: QuantizationArgs, grid: Grid, block_size: int = 128
) -> Quantized:
    """The same with scales that were found before and stay as they are."""
    columns = _columns(weight, factor)
    group = columns // (weight.shape[1] // grid.scale.shape[1])
    sweep = Sweep.over(weight[:, columns], factor.U, args, group)
    for start, stop in _blocks(0, weight.shape[1], block_size):
        sweep.quantize(start, stop, grid)
    return Quantized(_replaced(sweep.codes, factor.order), grid, args)


def _solve_by_group(
    weight: torch.Tensor, factor: Factor, args: QuantizationArgs, storage: Storage, block_size: int
) -> Quantized:
    """Group after group; blocks end where groups end, so a group's weights are up to date when it begins."""
    size = args.group_size or weight.shape[1]
    group = torch.zeros(weight.shape[1], dtype=torch.int64, device=weight.device)
    sweep = Sweep.over(weight[:, _columns(weight, factor)], factor.U, args, group)
    grids = []
    for first in range(0, weight.shape[1], size):
        grids.append(make_grid(sweep.W[:, first : first + size], args, storage))
        for start, stop in _blocks(first, first + size, block_size):
            sweep.quantize(start, stop, grids[-1])
    places = None if factor.order is None else factor.order[::size] // size
    zeros = [grid.zero for grid in grids if grid.zero is not None]
    scale = _replaced(torch.cat([grid.scale for grid in grids], 1), places)
    grid = Grid(scale, _replaced(torch.cat(zeros, 1), places) if zeros else None)
    return Quantized(_replaced(sweep.codes, factor.order), grid, args)


def _columns(weight: torch.Tensor, factor: Factor) -> torch.Tensor:
    return torch.arange(weight.shape[1], device=weight.device) if factor.order is None else factor.order


def _replaced(found: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    """Columns that were computed in ``order``, back in their places."""
    return found if order is None else torch.empty_like(found).index_copy_(1, order, found)


def _blocks(first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, size):
        yield start, min(start + size, last)


@dataclass(frozen=True, slots=True)
class Sweep:
    """The state of one pass over the columns.

    W: fp32 [N, K], the weights as compensated so far, in the order of the pass. U: fp32 [K, K], of which
    only the upper triangle is read.
    group: int64 [K], the scale that each column uses. codes: int8 [N, K]. limits: least and greatest code.
    """

    W: torch.Tensor
    U: torch.Tensor
    group: torch.Tensor
    codes: torch.Tensor
    limits: tuple[int, int]

    @classmethod
    def over(cls, W: torch.Tensor, U: torch.Tensor, args: QuantizationArgs, group: torch.Tensor) -> Sweep:
        """A pass about to begin; W is overwritten."""
        return cls(W, U, group, torch.empty(W.shape, dtype=torch.int8, device=W.device), code_range(args.num_bits))

    def quantize(self, start: int, stop: int, grid: Grid) -> None:
        """Quantize the columns of one block, then W[:, stop:] -= E U[start:stop, stop:] (equation 4) at once."""
        solve, widest = solver(self.W.device.type)
        for first, last in _blocks(start, stop, widest or stop - start):
            errors = solve(self, first, last, grid)
            if last < self.W.shape[1]:
                self.W[:, last:].addmm_(errors, self.U[first:last, last:], alpha=-1)


Solver = Callable[[Sweep, int, int, Grid], torch.Tensor]


def solver(device: str) -> tuple[Solver, int | None]:
    """The fastest loop that there is for a device, and the most columns that it takes at once (None = any)."""
    if device == "cpu":
        return compiled_columns, None
    if device == "cuda" and kernels_compile():
        return kernel_columns, KERNEL_COLUMNS
    return eager_columns, None


@cache
def kernels_compile() -> bool:
    """Whether CUDA kernels can be compiled here; a warning says why not."""
    from quantrecipe.kernels.compile import nvrtc_version

    try:
        nvrtc_version()
    except BackendError as error:
        warnings.warn(f"GPTQ takes its slow loop: {error}", stacklevel=2)
        return False
    return True


def kernel_columns(sweep: Sweep, start: int, stop: int, grid: Grid) -> torch.Tensor:
    """The same by the operator ``gptq_block``; at most KERNEL_COLUMNS."""
    import quantrecipe.kernels.ops  # noqa: F401 - defines the operator

    block = slice(start, stop)
    weight, factor, groups = sweep.W[:, block], sweep.U[block, block], sweep.group[block]
    bits = (sweep.limits[1] - sweep.limits[0]).bit_length()
    scale, zero = grid.floats(len(weight))
    errors: torch.Tensor
    sweep.codes[:, block], errors = torch.ops.quantrecipe.gptq_block(weight, factor, scale, zero, groups, bits)
    return errors


def compiled_columns(sweep: Sweep, start: int, stop: int, grid: Grid) -> torch.Tensor:
    """Codes of the columns [start, stop); returns the errors E [N, stop - start] = (w - w_q) / U_jj."""
    from quantrecipe.kernels.cpu.numbers import use_threads
    from quantrecipe.kernels.gptq_block import quantize_columns

    rows = sweep.W.shape[0]
    errors = torch.empty(rows, stop - start)
    scale, zero = (part.contiguous().numpy() for part in grid.floats(rows))
    W, U, group, codes = (part.numpy() for part in (sweep.W, sweep.U, sweep.group, sweep.codes))
    low, high = map(float, sweep.limits)
    use_threads()
    quantize_columns(W, U, start, stop, scale, zero, group, low, high, codes, errors.numpy())
    return errors


def eager_columns(sweep: Sweep, start: int, stop: int, grid: Grid) -> torch.Tensor:
    """The same loop in torch operations, for other devices; slow, as each column is some ten launches."""
    scale, zero = grid.floats(sweep.W.shape[0])
    block = sweep.W[:, start:stop].clone()
    errors = torch.empty_like(block)
    for i, column in enumerate(range(start, stop)):
        s, z = scale[:, sweep.group[column]], zero[:, sweep.group[column]]
        q = (torch.round(block[:, i] / s) + z).clamp_(*sweep.limits)
        errors[:, i] = (block[:, i] - (q - z) * s) / sweep.U[column, column]
        sweep.codes[:, column] = q.to(torch.int8)
        block[:, i + 1 :] -= errors[:, i : i + 1] * sweep.U[column, column + 1 : stop]
    return errors

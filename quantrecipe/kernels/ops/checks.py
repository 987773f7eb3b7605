"""What every implementation of an operator refuses, in one line each; implementations call these first."""

from __future__ import annotations

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.ops.layouts import Weight

WEIGHT_ONLY_BITS = (2, 3, 4, 5, 6, 8)


def check_bits(num_bits: int) -> None:
    """Widths that codes can have."""
    if num_bits not in WEIGHT_ONLY_BITS:
        raise BackendError("no kernel for this width", value=num_bits, limit="2, 3, 4, 5, 6 or 8 bits")


def check_pack(num_bits: int, symmetric: bool, kind: str) -> None:
    """What quantize_pack can make."""
    if kind not in ("int", "fp8") or (kind == "fp8" and not (num_bits == 8 and symmetric)):
        raise BackendError("quantize_pack", value=f"{kind} {num_bits}", limit="int, or symmetric fp8 of 8 bits")
    check_bits(num_bits)


def group_count(columns: int, group_size: int) -> int:
    """Groups of a row. Raises BackendError where they do not come out even."""
    if group_size < 0:
        raise BackendError("group_size", value=group_size, limit="0 (one group a row) or more")
    if group_size and columns % group_size:
        raise BackendError(
            f"{columns} columns are no multiple of the group size",
            value=group_size,
            remedy="use a group size that divides the columns, or one scale a row",
        )
    return columns // group_size if group_size else 1


def check_codes(codes: torch.Tensor) -> None:
    """Codes before they are packed."""
    if codes.dtype != torch.uint8 or codes.dim() != 2 or not codes.numel():
        raise BackendError("codes", value=_said(codes), limit="a uint8 matrix [N, K]")


def checked_weight(
    codes: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor | None, num_bits: int, group_size: int,
    dtype: torch.dtype,
) -> Weight:  # fmt: skip
    """What is to be repacked, its parts fitting together."""
    check_bits(num_bits)
    check_codes(codes)
    rows, columns = codes.shape
    check_scales(scales, rows, group_count(columns, group_size))
    symmetric = zero_points is None or not zero_points.numel()
    if zero_points is not None and not symmetric:
        check_scales(zero_points, *scales.shape)
    return Weight(rows, columns, num_bits, group_size, dtype, scales.dtype, symmetric)


def check_inputs(x: torch.Tensor, columns: int) -> None:
    """Inputs of a layer with K columns."""
    if x.shape[-1] != columns:
        raise BackendError("inputs", value=_said(x), limit=f"{columns} columns")


def check_scales(scales: torch.Tensor, rows: int, groups: int) -> None:
    """Plain scales."""
    if tuple(scales.shape) != (rows, groups):
        raise BackendError("scales", value=_said(scales), limit=f"[{rows}, {groups}]")


def _said(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"

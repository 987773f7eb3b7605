"""8-bit products on CPU: linear_w8a8, linear_w4a8, linear_llm_int8, linear_fp8."""

from __future__ import annotations

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.cpu import byte_loops, layout
from quantrecipe.kernels.cpu.choice import FEW_ROWS, chunk_rows
from quantrecipe.kernels.cpu.numbers import loopable, raw, use_threads
from quantrecipe.kernels.ops.checks import check_codes, check_inputs, check_scales, group_count
from quantrecipe.kernels.ops.library import implement

Tensor = torch.Tensor


@implement("linear_w8a8", "CPU")
def linear_w8a8(
    q: Tensor,
    x_scales: Tensor,
    weight: Tensor,
    w_scales: Tensor,
    x_zero_points: Tensor | None,
    w_sums: Tensor | None,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """(q - zero) W x_scale w_scale + bias."""
    check_inputs(q, weight.shape[1])
    product = int_product(q, weight)
    if x_zero_points is not None:
        sums = weight.sum(1, dtype=torch.int32) if w_sums is None else w_sums
        product = product - x_zero_points.view(-1, 1) * sums
    return _scaled(product, x_scales, w_scales, bias, out_dtype)


def int_product(q: Tensor, weight: Tensor) -> Tensor:
    """int32 [M, N] of int8 q [M, K] and weight [N, K]."""
    if q.dtype != torch.int8 or weight.dtype != torch.int8:
        raise BackendError("an int8 product of", value=f"{q.dtype} and {weight.dtype}")
    if len(q) > FEW_ROWS["w8a8"]:
        return torch._int_mm(q.contiguous(), weight.t())
    out = q.new_empty(len(q), len(weight), dtype=torch.int32)
    use_threads()
    byte_loops.integer_product(raw(q.contiguous()), raw(weight.contiguous()), raw(out))
    return out


def _scaled(product: Tensor, x_scales: Tensor, w_scales: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    found = (product.float() * x_scales.view(-1, 1)).mul_(w_scales.view(1, -1))
    return (found if bias is None else found.add_(bias)).to(dtype)


@implement("repack_w4a8", "CPU")
def repack_w4a8(codes: Tensor) -> Tensor:
    """Into the CPU's layout of 4 bits."""
    check_codes(codes)
    return layout.pack(codes, 4)


@implement("linear_w4a8", "CPU")
def linear_w4a8(
    q: Tensor,
    x_scales: Tensor,
    packed: Tensor,
    w_scales: Tensor,
    group_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
    out_dtype: torch.dtype,
) -> Tensor:
    """Unpacked to int8 in chunks."""
    groups, step = group_count(q.shape[1], group_size), 2 * chunk_rows(q.shape[1])
    check_scales(packed, *layout.packed_shape(len(w_scales), q.shape[1], 4)[0])
    if group_scales is None:
        group_scales = packed.new_empty(0, 0, dtype=torch.int8)
    else:
        check_scales(group_scales, len(packed), groups)
    found = q.new_empty(len(q), len(packed), dtype=torch.int32)
    for a in range(0, len(packed), step):
        part = slice(a, a + step)
        weight = q.new_empty(len(packed[part]), q.shape[1])
        use_threads()
        byte_loops.nibbles_to_int8(raw(packed[part]), raw(group_scales[part].contiguous()), raw(weight))
        found[:, part] = int_product(q, weight)
    return _scaled(found, x_scales, w_scales, bias, out_dtype)


@implement("linear_llm_int8", "CPU")
def linear_llm_int8(x: Tensor, weight: Tensor, w_scales: Tensor, threshold: float, bias: Tensor | None) -> Tensor:
    """X_O W_O + s_x (X_int8 W_int8) s_w; a token's scale comes from all its numbers below the threshold."""
    check_inputs(x, weight.shape[1])
    large = x.abs() >= threshold
    columns = large.any(0)
    scale = x.masked_fill(large, 0).abs().amax(-1).float() / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    rest = x.float().masked_fill(columns, 0)
    found = _scaled(
        int_product((rest / scale.unsqueeze(1)).round().to(torch.int8), weight), scale, w_scales, bias, torch.float32
    )
    if bool(columns.any()):
        found += (x[:, columns] @ weight[:, columns].to(x.dtype).t()).float() * w_scales
    return found.to(x.dtype)


@implement("linear_fp8", "CPU")
def linear_fp8(
    q: Tensor, x_scales: Tensor | None, weight: Tensor, w_scales: Tensor, bias: Tensor | None, out_dtype: torch.dtype
) -> Tensor:
    """fp8 numbers are exact in the type of the output, in which they are multiplied (fp32 where that is fp16)."""
    check_inputs(q, weight.shape[1])
    exact = torch.bfloat16 if out_dtype == torch.bfloat16 else torch.float32
    x = q.to(exact) if q.dtype == torch.float8_e4m3fn else loopable(q)
    few = len(x) <= FEW_ROWS["fp8"]
    found = float8_loop(x, weight, w_scales) if few else float8_chunks(x, weight).mul_(w_scales)
    if x_scales is not None:
        found = found * x_scales.view(-1, 1)
    return (found if bias is None else found + bias).to(out_dtype)


def float8_chunks(x: Tensor, weight: Tensor) -> Tensor:
    """fp32 [M, N] of x [M, K], scales still to come."""
    found = x.new_empty(len(x), len(weight), dtype=torch.float32)
    step = chunk_rows(x.shape[1])
    for a in range(0, len(weight), step):
        part = weight[a : a + step].contiguous()
        numbers = x.new_empty(part.shape)
        use_threads()
        byte_loops.float8_rows(raw(part), raw(numbers))
        found[:, a : a + step] = torch.nn.functional.linear(x, numbers)
    return found


def float8_loop(x: Tensor, weight: Tensor, w_scales: Tensor) -> Tensor:
    """fp32 [M, N] of few rows x [M, K]."""
    out, none = x.new_empty(len(x), len(weight), dtype=torch.float32), x.new_empty(0, dtype=torch.float32)
    use_threads()
    byte_loops.times_float8(raw(x.float().contiguous()), raw(weight.contiguous()), raw(w_scales), raw(none), raw(out))
    return out

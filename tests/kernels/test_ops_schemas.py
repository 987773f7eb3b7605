"""Operators on the meta device: the shapes and dtypes that the schema promises, and what is refused."""

import pytest
import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.ops import SCHEMAS

OPS = torch.ops.quantrecipe


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_registered_with_a_fake(name: str) -> None:
    operator = getattr(OPS, name).default
    assert torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "Meta")


@pytest.mark.parametrize(
    ("bits", "kind", "shape", "dtype"),
    [
        (4, "int", (5, 10), torch.int32),
        (3, "int", (5, 8), torch.int32),
        (8, "int", (5, 77), torch.int8),
        (8, "fp8", (5, 77), torch.float8_e4m3fn),
    ],
)
def test_quantize_pack(bits: int, kind: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    packed, scales, zeros = OPS.quantize_pack(meta(5, 77), bits, 11, False, kind)
    assert (tuple(packed.shape), packed.dtype) == (shape, dtype)
    assert tuple(scales.shape) == tuple(zeros.shape) == (5, 7)


def test_linear_layers() -> None:
    x, q = meta(2, 3, 64), meta(6, 64, dtype=torch.int8)
    scales, row = meta(9, 2), meta(9, dtype=torch.float32)
    packed, scales, none = OPS.repack(meta(9, 64, dtype=torch.uint8), scales, None, 4, 32, torch.bfloat16)
    assert OPS.linear_weight_only(x, packed, scales, none, None, 4, 32, 9).shape == (2, 3, 9)
    out = OPS.linear_w8a8(q, row[:6], meta(9, 64, dtype=torch.int8), row, None, None, None, torch.float16)
    assert (tuple(out.shape), out.dtype) == ((6, 9), torch.float16)


def test_uneven_groups_are_refused_in_one_line() -> None:
    with pytest.raises(BackendError, match="77 columns are no multiple of the group size: 32") as caught:
        OPS.quantize_pack(meta(5, 77), 4, 32, True)
    assert "\n" not in str(caught.value)


def test_widths_without_a_kernel_are_refused() -> None:
    with pytest.raises(BackendError, match="no kernel for this width: 7"):
        OPS.repack(meta(5, 64, dtype=torch.uint8), meta(5, 1), None, 7, 0, torch.bfloat16)

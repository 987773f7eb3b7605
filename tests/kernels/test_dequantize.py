"""dequantize on CUDA's layout, emulated and on a GPU, against float64."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from places import call, cases, generator, numbers

from quantrecipe.errors import BackendError
from quantrecipe.kernels.cuda.layout import PLANES, pack_units

SHAPES = [(16, 64, 0), (33, 192, 64), (5, 96, 48), (17, 130, 0), (3, 80, 20), (40, 77, 11), (19, 70, 1)]
QUICK = {(torch.float16, 4, True), (torch.bfloat16, 3, False)}
CASES = list(product((torch.float16, torch.bfloat16), PLANES, (True, False)))


@cases(CASES, QUICK, places=("emulated", "cuda"))
def test_dequantize(place: str, case: tuple[torch.dtype, int, bool]) -> None:
    dtype, bits, symmetric = case
    random = generator()
    for rows, columns, group_size in SHAPES:
        codes = torch.from_numpy(random.integers(0, 2**bits, (rows, columns), dtype=np.uint8))
        groups = columns // group_size if group_size else 1
        scales = numbers(random, dtype, rows, groups).abs() + 0.25
        if random.integers(2):
            scales = scales.t().contiguous().t()  # groups outermost in memory, as repack leaves them
        zeros = torch.from_numpy(random.integers(0, 2**bits, (rows, groups))).to(dtype)
        found = call(
            place, "dequantize", pack_units(codes, PLANES[bits]), scales, None if symmetric else zeros,
            bits, group_size, columns, dtype,
        )  # fmt: skip
        start = 2 ** (bits - 1) if symmetric else zeros.double().repeat_interleave(columns // groups, 1)
        exact = (codes.double() - start) * scales.double().repeat_interleave(columns // groups, 1)
        assert torch.equal(found, exact.to(dtype))


@pytest.mark.parametrize("fault", ["width", "groups"])
def test_what_cannot_be_is_refused(fault: str) -> None:
    scales = torch.ones(16, 3 if fault == "groups" else 1, dtype=torch.float16)
    packed = torch.zeros(1, 1, 128, dtype=torch.int32)
    with pytest.raises(
        BackendError, match="no kernel for this width: 7" if fault == "width" else "scales: .*; \\[16, 1\\]"
    ):
        call("emulated", "dequantize", packed, scales, None, 7 if fault == "width" else 4, 0, 64, torch.float16)

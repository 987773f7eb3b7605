"""The CPU's layout of packed codes: one for matrix times vector, matrix times matrix and dequantizing.

A row has Kp = K rounded up to whole blocks of 64 codes, the last filled with 0. Its bytes are planes of 4, 2 and 1
bits, as the width is the sum of (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2), the high bits first; 8 bits are the codes.
In the plane of 4 byte 32 i + j holds codes 64 i + j (low) and 64 i + j + 32 (high), so that 64 codes unpack in two
vectors. In planes of w = 1 and 2 bits byte j holds codes j + i H, i = 0 … 8 / w - 1, where H = Kp w / 8.
"""

from __future__ import annotations

import torch

from quantrecipe.kernels.ops.layouts import Spec

BLOCK = 64
#: Widths of the planes that make up a width, high bits first.
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}


def padded(columns: int) -> int:
    """Columns in whole blocks."""
    return -(-columns // BLOCK) * BLOCK


def packed_shape(rows: int, columns: int, num_bits: int) -> Spec:
    """Shape and dtype of packed codes."""
    return (rows, padded(columns) * num_bits // 8), torch.uint8


def pack(codes: torch.Tensor, num_bits: int) -> torch.Tensor:
    """Codes uint8 [N, K] -> uint8 [N, Kp b / 8]."""
    spare = padded(codes.shape[1]) - codes.shape[1]
    full = torch.nn.functional.pad(codes, (0, spare))
    planes, rest = [], num_bits
    for width in PLANES[num_bits]:
        rest -= width
        planes.append(_plane((full >> rest) & (2**width - 1), width))
    return torch.cat(planes, dim=1) if len(planes) > 1 else planes[0].contiguous()


def _plane(values: torch.Tensor, width: int) -> torch.Tensor:
    """Values below 2^w, uint8 [N, Kp] -> uint8 [N, Kp w / 8]."""
    if width == 8:
        return values
    if width == 4:
        halves = values.view(len(values), -1, 2, BLOCK // 2)
        return (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)
    parts = values.view(len(values), 8 // width, -1)
    plane = parts[:, 0].clone()
    for index in range(1, 8 // width):
        plane |= parts[:, index] << (index * width)
    return plane

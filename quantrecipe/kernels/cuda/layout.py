"""CUDA's layout of packed codes, one a width: units of 16 rows by 64 columns, as csrc/wna16_decode.cuh reads them.

packed int32 [ceil(N / 16), ceil(K / 64), 32 b]. A unit is its planes, one after the other, each lane by lane (8 bits:
two planes of four words a lane). Lane 4 g + t owns rows g and g + 8, columns 16 t … 16 t + 15; its 32 codes are
numbered by (j, h, r, e): row g + 8 r, column 16 t + 4 j + 2 h + e. Rows and columns that a matrix lacks hold code 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from quantrecipe.kernels.ops.layouts import LAYOUTS, Layout, Spec, Weight

ROWS, COLUMNS, LANES = 16, 64, 32
CODES = ROWS * COLUMNS // LANES  # of a lane
CHUNK = 1 << 22  # codes that are packed at once: they stand as int64 meanwhile


@dataclass(frozen=True, slots=True)
class Plane:
    """``bits`` of every code from bit ``low`` on. words, shifts: where each of a lane's 32 codes goes."""

    low: int
    bits: int
    words: tuple[int, ...]
    shifts: tuple[int, ...]


def _numbered() -> Iterator[tuple[int, int, int, int]]:
    return ((i // 8, i // 4 % 2, i // 2 % 2, i % 2) for i in range(CODES))


def _nibbles() -> Plane:
    shifts = tuple(4 * (r + 2 * h) + 16 * e for _, h, r, e in _numbered())
    return Plane(0, 4, tuple(j for j, *_ in _numbered()), shifts)


def _crumbs(low: int) -> Plane:
    shifts = tuple(8 * (j % 2) + 2 * (r + 2 * h) + 16 * e for j, h, r, e in _numbered())
    return Plane(low, 2, tuple(j // 2 for j, *_ in _numbered()), shifts)


def _single(low: int) -> Plane:
    shifts = tuple(4 * j + r + 2 * h + 16 * e for j, h, r, e in _numbered())
    return Plane(low, 1, (0,) * CODES, shifts)


def _bytes() -> Plane:
    return Plane(
        0, 8, tuple(2 * j + r for j, _, r, _ in _numbered()), tuple(16 * h + 8 * e for _, h, _, e in _numbered())
    )


PLANES = {
    2: (_crumbs(0),),
    3: (_crumbs(0), _single(2)),
    4: (_nibbles(),),
    5: (_nibbles(), _single(4)),
    6: (_nibbles(), _crumbs(4)),
    8: (_bytes(),),
}
#: linear_w4a8's: byte b of word w is column 16 t + 4 w + b, row g in its low nibble and row g + 8 in its high one.
FOUR_BY_EIGHT = (
    Plane(0, 4, tuple(j for j, *_ in _numbered()), tuple(8 * (2 * h + e) + 4 * r for _, h, r, e in _numbered())),
)


def packed_shape(rows: int, columns: int, num_bits: int) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of packed codes."""
    return (-(-rows // ROWS), -(-columns // COLUMNS), LANES * num_bits), torch.int32


def _specs(weight: Weight) -> tuple[Spec, Spec, Spec]:
    return packed_shape(weight.rows, weight.columns, weight.num_bits), *weight.plain()


LAYOUTS["cuda"] = Layout(weight=_specs, w4a8=lambda rows, columns: packed_shape(rows, columns, 4))


def pack_units(codes: torch.Tensor, planes: tuple[Plane, ...]) -> torch.Tensor:
    """Codes uint8 [N, K] -> packed; ``planes``: PLANES[b] or FOUR_BY_EIGHT. Once a layer, in torch, on any device."""
    rows, columns = codes.shape
    shape, dtype = packed_shape(rows, columns, sum(plane.bits for plane in planes))
    packed = torch.empty(shape, dtype=dtype, device=codes.device)
    step = max(1, CHUNK // (ROWS * COLUMNS * shape[1]))
    for start in range(0, shape[0], step):
        lanes = _lanes(codes[start * ROWS : (start + step) * ROWS])
        packed[start : start + step] = torch.cat([_pack_plane(lanes, plane) for plane in planes], dim=2)
    return packed


def _lanes(codes: torch.Tensor) -> torch.Tensor:
    """Codes [n, K] -> int64 [tiles, units, lanes, 32]."""
    full = pad(codes, (0, -codes.shape[1] % COLUMNS, 0, -codes.shape[0] % ROWS)).long()
    tile_r_g_unit_t_j_h_e = full.view(-1, 2, 8, full.shape[1] // COLUMNS, 4, 4, 2, 2)
    return tile_r_g_unit_t_j_h_e.permute(0, 3, 2, 4, 5, 6, 1, 7).reshape(-1, full.shape[1] // COLUMNS, LANES, CODES)


def _pack_plane(lanes: torch.Tensor, plane: Plane) -> torch.Tensor:
    order = sorted(range(CODES), key=plane.words.__getitem__)
    shifts = torch.tensor([plane.shifts[i] for i in order], device=lanes.device)
    values: torch.Tensor = (lanes[..., order] >> plane.low & (2**plane.bits - 1)) << shifts
    words = values.view(*values.shape[:3], plane.bits, -1).sum(4)  # CODES codes of ``bits`` bits fill ``bits`` words
    pieces = words.view(*words.shape[:3], -1, min(plane.bits, 4)).transpose(2, 3)
    return pieces.flatten(2).to(torch.int32)


def unpack_units(packed: torch.Tensor, planes: tuple[Plane, ...], rows: int, columns: int) -> torch.Tensor:
    """The inverse: uint8 [rows, columns]."""
    lanes = torch.zeros(*packed.shape[:2], LANES, CODES, dtype=torch.int64, device=packed.device)
    start = 0
    for plane in planes:
        part = packed[..., start : start + LANES * plane.bits]
        words = part.reshape(*part.shape[:2], -1, LANES, min(plane.bits, 4))
        start += LANES * plane.bits
        per_lane = words.transpose(2, 3).flatten(3).long()[..., list(plane.words)]
        lanes |= (per_lane >> torch.tensor(plane.shifts, device=packed.device) & (2**plane.bits - 1)) << plane.low
    blocks = lanes.view(*packed.shape[:2], 8, 4, 4, 2, 2, 2).permute(0, 6, 2, 1, 3, 4, 5, 7)
    return blocks.reshape(packed.shape[0] * ROWS, -1)[:rows, :columns].to(torch.uint8)

"""Which kernel multiplies, with what tile and how many blocks: data, and the reason that a report prints.

The tiles are those of csrc/gemm_*.cu, by rows of x. Not one limit here has been timed on a GPU: they follow from
bytes, registers and shared memory, and docs/kernels.md lists what is to be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from quantrecipe.errors import BackendError

GEMV_OUTPUTS, GEMV_WARPS, UNIT_COLUMNS = 16, 8, 64  # csrc/gemv_wNa16.cu
LAST_WAVE = 0.9  # whole tiles a block where the last wave is this full: nothing to sum afterwards


@dataclass(frozen=True, slots=True)
class Tile:
    """rows of x by outputs, columns of K a stage; resident: blocks that one multiprocessor is expected to hold."""

    rows: int
    outputs: int
    columns: int
    threads: int
    stages: int
    resident: int

    def shared(self, x_bits: int, weight_bits: int) -> int:
        """Bytes of the stages, or of the tile's sums, which take their place."""
        stage = self.columns * (self.rows * x_bits + self.outputs * weight_bits) // 8
        return max(self.stages * stage, 4 * self.rows * (self.outputs + 4))

    def count(self, m: int, n: int) -> int:
        """Tiles of y [m, n]."""
        return -(-m // self.rows) * -(-n // self.outputs)


@dataclass(frozen=True, slots=True)
class Range:
    """Up to ``most_rows`` rows of x (None: any) a product goes to ``kernel``; tile_rows 0: it has no tiles."""

    most_rows: int | None
    kernel: str
    tile_rows: int
    because: str


@dataclass(frozen=True, slots=True)
class Device:
    """What a choice depends on."""

    name: str
    multiprocessors: int


@dataclass(frozen=True, slots=True)
class Pick:
    """grid: blocks, in x and y. tile: None for kernels without."""

    kernel: str
    tile: Tile | None
    grid: tuple[int, int]
    reason: str

    @property
    def needed_tile(self) -> Tile:
        """Of a kernel that has tiles."""
        if self.tile is None:
            raise BackendError("no tile", value=self.kernel)
        return self.tile


TILES: dict[str, dict[int, Tile]] = {
    "gemm_wNa16": {
        16: Tile(16, 64, 256, 256, 4, 2),
        32: Tile(32, 64, 256, 256, 3, 1),
        64: Tile(64, 128, 64, 128, 4, 2),
    },
    "gemm_w4a8": {
        8: Tile(8, 64, 256, 256, 4, 2),
        16: Tile(16, 64, 256, 256, 4, 2),
        32: Tile(32, 64, 256, 256, 4, 2),
        64: Tile(64, 128, 64, 128, 4, 2),
    },
    "gemm_w8a8": {
        16: Tile(16, 64, 128, 128, 4, 4),
        64: Tile(64, 128, 128, 256, 3, 2),
        128: Tile(128, 128, 128, 256, 3, 1),
    },
}

WEIGHT_ONLY = (
    Range(8, "gemv_wNa16", 0, "bound by the weight's bytes: codes go straight to registers, eight rows cost as one"),
    Range(16, "gemm_wNa16", 16, "bound by the weight's bytes: narrow tiles, four warps share their columns"),
    Range(32, "gemm_wNa16", 32, "bound by the weight's bytes: narrow tiles, four warps share their columns"),
    Range(256, "gemm_wNa16", 64, "between bytes and arithmetic: a code is decoded once for 64 rows"),
    Range(None, "dequantize", 0, "bound by arithmetic: the weight is made 16 bits once, torch multiplies"),
)
W8A8 = (
    Range(16, "gemm_w8a8", 16, "bound by the weight's bytes: narrow tiles in stripes"),
    Range(64, "gemm_w8a8", 64, "between bytes and arithmetic"),
    Range(None, "gemm_w8a8", 128, "bound by arithmetic: the greatest tile"),
)
W4A8 = (
    Range(8, "gemm_w4a8", 8, "bound by the weight's bytes: eight rows cost as one"),
    Range(16, "gemm_w4a8", 16, "bound by the weight's bytes: narrow tiles in stripes"),
    Range(32, "gemm_w4a8", 32, "bound by the weight's bytes: narrow tiles in stripes"),
    Range(None, "gemm_w4a8", 64, "between bytes and arithmetic: a code is decoded once for 64 rows"),
)


@lru_cache(maxsize=16)
def device_of(device: torch.device) -> Device:
    """Facts of a device; of the CPU those that emulation pretends to."""
    if device.type == "cpu":
        return Device("emulated", 3)
    properties = torch.cuda.get_device_properties(device)
    return Device(properties.name, properties.multi_processor_count)


@lru_cache(maxsize=4096)
def pick_weight_only(m: int, n: int, k: int, group_size: int, device: Device) -> Pick:
    """For linear_weight_only, x [m, k] in 16 bits."""
    found = range_of(WEIGHT_ONLY, m)
    if found.kernel == "gemv_wNa16":
        return _gemv(n, k, found, device)
    if group_size % 16 and found.kernel != "dequantize":
        because = f"groups of {group_size} are no multiple of 16, the run of columns that a lane scales at once"
        return Pick("dequantize", None, (0, 0), because)
    return _tiled(found, m, n, k, device) if found.tile_rows else Pick("dequantize", None, (0, 0), found.because)


@lru_cache(maxsize=4096)
def pick_eight_bit(ranges: tuple[Range, ...], m: int, n: int, k: int, device: Device) -> Pick:
    """For linear_w8a8 (W8A8) and linear_w4a8 (W4A8)."""
    return _tiled(range_of(ranges, m), m, n, k, device)


def range_of(ranges: tuple[Range, ...], m: int) -> Range:
    """The range that m rows fall in."""
    return next(one for one in ranges if one.most_rows is None or m <= one.most_rows)


def _gemv(n: int, k: int, found: Range, device: Device) -> Pick:
    """A block for 16 outputs; where multiprocessors would idle, several share its columns."""
    tiles, units = -(-n // GEMV_OUTPUTS), -(-k // UNIT_COLUMNS)
    wanted = -(-2 * device.multiprocessors // tiles) if tiles < device.multiprocessors else 1
    splits = max(1, min(wanted, units // (2 * GEMV_WARPS)))
    shared = f"; {splits} blocks share the columns of 16 outputs, {tiles} tiles being few" if splits > 1 else ""
    return Pick("gemv_wNa16", None, (tiles, splits), found.because + shared)


def _tiled(found: Range, m: int, n: int, k: int, device: Device) -> Pick:
    tile = TILES[found.kernel][found.tile_rows]
    tiles, steps = tile.count(m, n), -(-k // tile.columns)
    slots = device.multiprocessors * tile.resident
    waves = -(-tiles // slots)
    if tiles >= LAST_WAVE * waves * slots:
        return Pick(
            found.kernel, tile, (tiles, 1), f"{found.because}; {tiles} tiles fill {waves} waves of {slots} blocks"
        )
    count = min(slots, tiles * steps)
    reason = f"{found.because}; {tiles} tiles of {steps} steps in {count} equal stripes"
    return Pick(found.kernel, tile, (count, 1), reason)

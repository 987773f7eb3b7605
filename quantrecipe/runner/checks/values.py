"""What the numbers of a checkpoint show by themselves: scales, zero points, codes, channels, one module at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import Decoded, Reader, reader_of
from quantrecipe.modeling.formats.gptq import GptqReader
from quantrecipe.runner.checks.provenance import Provenance
from quantrecipe.runner.checks.report import Integrity

#: Scales of inputs and caches, which belong to no matrix.
LOOSE_SCALES = (".input_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale")
#: Share of blocks that may lack the code of their largest weight: a maximum rounded to 8 bits hides one rarely.
MOST_BLOCKS_WITHOUT = 0.01
#: Mean of code minus zero point, in steps, beyond which zero points are taken for shifted by one.
SHIFT = 0.5


@dataclass(slots=True)
class _Seen:
    """Lines by kind, gathered over all modules."""

    scales: list[str] = field(default_factory=list)
    grids: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)


def check_values(
    stored: ModelFolder, reader: Reader, record: Provenance | None, report: Integrity, channels: bool
) -> None:
    """Decode every readable module once and look at it. channels: say which are constant (no original to ask)."""
    seen = _Seen()
    for module in reader.modules(stored):
        try:
            decoded = reader.decode(stored, module)
        except ModelError:
            continue  # said already
        _look(stored, reader, module, decoded, seen)
        if channels:
            seen.channels += constant_rows(module, decoded)
        if record is not None and module in record.weights and record.weights[module] != _digest(decoded, record):
            seen.digests.append(f"{module} reads back as other weights than were chosen")
    _loose(stored, reader, seen)
    _tell(reader, record, seen, report)


def _digest(decoded: Decoded, record: Provenance) -> str:
    return digest(decoded.weight(getattr(torch, record.dtype)))


def _tell(reader: Reader, record: Provenance | None, seen: _Seen, report: Integrity) -> None:
    fine = not report.damaged(seen.scales, "more scales or tensors like these")
    fine &= not report.damaged(seen.grids)
    fine &= not report.damaged(seen.blocks)
    fine &= not report.damaged(_shifted(reader, seen.shifts))
    if fine:
        report.checked.append("scales finite and positive, zero points and codes in range, all other tensors finite")
    report.doubtful(seen.channels)
    if record is not None and not report.damaged(seen.digests):
        report.checked.append(f"{len(record.weights)} dequantized weights are those that were chosen, by our reader")


def _look(stored: ModelFolder, reader: Reader, module: str, decoded: Decoded, seen: _Seen) -> None:
    seen.scales += scale_faults(module, decoded)
    seen.grids += [*_grid_faults(stored, reader, module, decoded)]
    if decoded.book is not None and float(decoded.book.abs().max()) == 1:
        seen.blocks += _block_faults(module, decoded)
    if decoded.zero is not None:
        seen.shifts.append(float(decoded.steps().float().mean()))


def scale_faults(module: str, decoded: Decoded) -> Iterator[str]:
    """NaN, infinity, and scales that are not positive; a block of zeros may have a maximum of 0 (bitsandbytes)."""
    scale = decoded.scale.float()
    bad = ~torch.isfinite(scale)
    if bool(bad.any()):
        yield f"{module}: {int(bad.sum())} of {scale.numel()} scales are NaN or infinite"
        return
    low = scale <= 0
    if decoded.book is not None:
        empty = (decoded.book[decoded.codes.long()] == 0).all(1, keepdim=True)
        low &= ~(empty & (scale == 0))
    if bool(low.any()):
        yield f"{module}: {int(low.sum())} of {scale.numel()} scales are not positive"


def all_scale_faults(stored: ModelFolder) -> list[str]:
    """The scale faults of every module, and of scales beside them."""
    reader, seen = reader_of(stored), _Seen()
    for module in reader.modules(stored):
        seen.scales += scale_faults(module, reader.decode(stored, module))
    _loose(stored, reader, seen)
    return seen.scales


def _grid_faults(stored: ModelFolder, reader: Reader, module: str, decoded: Decoded) -> Iterator[str]:
    """Zero points, plain codes, code books and g_idx out of their range."""
    bits = reader.bits(module)
    if decoded.book is not None and not bool(torch.isfinite(decoded.book).all()):
        yield f"{module}: the code book holds NaN or infinity"
    if decoded.codes.is_floating_point():
        if not bool(torch.isfinite(decoded.codes.float()).all()):
            yield f"{module}: codes are NaN"
    elif decoded.codes.dtype == torch.int8 and bits < 8:
        low, high = (int(extreme) for extreme in torch.aminmax(decoded.codes))
        if low < -(2 ** (bits - 1)) or high >= 2 ** (bits - 1):
            yield f"{module}: codes of {low} to {high} do not fit {bits} bits"
    if decoded.zero is not None and decoded.zero.numel():
        yield from _zero_faults(reader, module, decoded.zero, decoded.codes.dtype, bits)
    for name in (f"{module}.g_idx", f"{module}.weight_g_idx"):
        if name in stored:
            low, high = (int(extreme) for extreme in torch.aminmax(stored.tensor(name)))
            if low < 0 or high >= decoded.scale.shape[1]:
                yield f"{name} points at groups {low} to {high} of {decoded.scale.shape[1]}"


def _zero_faults(reader: Reader, module: str, zero: torch.Tensor, dtype: torch.dtype, bits: int) -> Iterator[str]:
    low, high = (int(extreme) for extreme in torch.aminmax(zero))
    least = 0 if dtype == torch.uint8 else -(2 ** (bits - 1))
    if low < least or high >= least + 2**bits:
        yield f"{module}: zero points of {low} to {high} do not fit {bits} bits"
    if not isinstance(reader, GptqReader):
        return
    middle = 2 ** (bits - 1)
    if reader.symmetric and (low, high) != (middle, middle):
        other = {1: "gptq_v2", 2: "gptq (version 1)"}[reader.version]
        shift = {1: middle + 1, 2: middle - 1}[reader.version]
        hint = f": those of a {other} file" if (low, high) == (shift, shift) else ""
        yield f"{module}: symmetric, yet its zero points are {low} to {high}, not {middle}{hint}"
    elif reader.version == 1 and low == 0:
        yield f"{module}: a zero point of 0, which version 1 cannot store (it underflows into its neighbours)"


def _shifted(reader: Reader, shifts: list[float]) -> Iterator[str]:
    """Weights scatter about zero; if every layer's lie a whole step aside, its zero points are off by one."""
    if not shifts:
        return
    middle = float(torch.tensor(shifts).median())
    alike = sum(abs(shift - middle) < SHIFT for shift in shifts) / len(shifts)
    if abs(middle) > SHIFT and abs(abs(middle) - 1) < SHIFT and alike > 0.8:
        other = ""
        if isinstance(reader, GptqReader):
            wanted = 2 if middle < 0 else 1
            other = f", as version {wanted}'s read as version {reader.version}" if wanted != reader.version else ""
        yield f"zero points are off by one throughout{other} (weights average {middle:+.2f} steps)"


def _block_faults(module: str, decoded: Decoded) -> Iterator[str]:
    """A block's largest weight is its maximum, so its code is +1 or -1: else codes and maxima belong not together.

    Of books that reach to 1; FP4's scales are powers of two or rounded, so that its greatest code, 6, may not occur.
    """
    assert decoded.book is not None
    outermost = decoded.book.abs() == decoded.book.abs().max()
    whole = decoded.codes[:-1] if len(decoded.codes) > 1 else decoded.codes
    kept = decoded.scale[: len(whole), 0] != 0
    without = ~outermost[whole.long()].any(1) & kept
    share = float(without.float().mean())
    if share > MOST_BLOCKS_WITHOUT:
        yield (
            f"{module}: {share:.0%} of blocks lack the code of their own maximum: the codes are in another order "
            "(bitsandbytes repacks them in place on its first forward pass on a CPU)"
        )


def constant_rows(module: str, decoded: Decoded) -> Iterator[str]:
    """Output channels that are all zero or all one value."""
    weight = decoded.weight(torch.float32)
    if weight.shape[1] < 2:
        return
    low, high = weight.amin(1), weight.amax(1)
    constant = low == high
    if bool(constant.any()):
        dead = int((constant & (low == 0)).sum())
        other = int(constant.sum()) - dead
        what = " and ".join(
            text for count, text in ((dead, f"{dead} all zero"), (other, f"{other} constant")) if count
        )
        yield f"{module}: of {len(weight)} output channels {what}; --original tells whether they were so before"


def _loose(stored: ModelFolder, reader: Reader, seen: _Seen) -> None:
    """Every tensor that stands for no quantized weight: finite; scales of inputs and caches positive as well."""
    parts = {part for module in reader.modules(stored) for part in reader.parts(stored, module)}
    for name in stored.names:
        info = stored.info(name)
        if name in parts or not info.dtype.is_floating_point or not info.numel:
            continue
        tensor = stored.tensor(name).float()
        if not bool(torch.isfinite(tensor).all()):
            seen.scales.append(f"{name} holds NaN or infinity")
        elif name.endswith(LOOSE_SCALES) and not bool((tensor > 0).all()):
            seen.scales.append(f"{name} holds scales that are not positive")

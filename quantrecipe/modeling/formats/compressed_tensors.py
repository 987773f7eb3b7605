"""compressed-tensors: pack-quantized, and plain codes (int-, float-, naive-quantized).

pack-quantized: weight_packed int32 [N, ceil(K b / 32)] of unsigned codes, weight_shape int64 [2], weight_scale
[N, G] | [N, 1] | [1], weight_zero_point int32 [ceil(N b / 32), G] packed along N, weight_g_idx int32 [K].
Plain: weight int8 or float8_e4m3fn [N, K], weight_scale, weight_zero_point as the codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.bits import unpack_bits, unpack_padded, words_for
from quantrecipe.modeling.formats.compressed_config import FP4, PACKED, WeightScheme, candidates, schemes_of
from quantrecipe.modeling.formats.compressed_fp4 import fault_fp4, read_fp4, shape_fp4
from quantrecipe.modeling.formats.decoded import Decoded
from quantrecipe.modeling.formats.reader import FLOATS, Reader, matrix_fault, tensor_fault

_INTS = (torch.int8, torch.int32, torch.int64)


class CompressedTensorsReader(Reader):
    """Each module by the group that targets it."""

    name = "compressed-tensors"
    marks: ClassVar[tuple[str, ...]] = ("weight_packed", "weight_scale")
    suffixes: ClassVar[tuple[str, ...]] = (
        "weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
        "weight_global_scale",
    )  # fmt: skip

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.schemes = schemes_of(config)

    def scheme(self, module: str) -> WeightScheme:
        """The module's own scheme; the only one where no target names it. Raises ModelError."""
        found = candidates(self.schemes, module) or self.schemes
        if len(found) > 1 and found[0] not in candidates(self.schemes, module):
            raise ModelError("no config group targets a quantized module", value=module)
        return found[0]

    def bits(self, module: str) -> int:
        """The scheme's."""
        return self.scheme(module).bits

    def shape(self, folder: ModelFolder, module: str) -> tuple[int, int]:
        """From weight_shape, or the plain codes."""
        if f"{module}.weight_packed" not in folder:
            rows, columns = folder.info(f"{module}.weight").shape
            return rows, columns
        if self.scheme(module).layout in FP4:
            return shape_fp4(folder, module)
        rows, columns = folder.tensor(f"{module}.weight_shape").tolist()
        return int(rows), int(columns)

    def faults(self, folder: ModelFolder, module: str) -> Iterator[str]:
        """Codes give N and K; scales, zero points and g_idx must agree with them and with the scheme."""
        try:
            scheme = self.scheme(module)
        except ModelError as error:
            yield error.line()
            return
        if scheme.layout in FP4:
            problem = fault_fp4(folder, module, scheme)
            if problem:
                yield problem
            return
        packed = scheme.layout in PACKED
        problem = _packed_fault(folder, module, scheme) if packed else _plain_fault(folder, module, scheme)
        if problem:
            yield problem
            return
        rows, columns = self.shape(folder, module)
        if scheme.strategy == "group" and columns % scheme.group_size and not scheme.has_g_idx:
            yield f"{module}: {columns} columns are no multiple of the group size {scheme.group_size}"
            return
        yield from _grid_faults(folder, module, scheme, (rows, columns))

    def read(self, folder: ModelFolder, module: str) -> Decoded:
        """Codes and zeros unsigned where packed, signed where plain."""
        scheme, (rows, columns) = self.scheme(module), self.shape(folder, module)
        if scheme.layout in FP4:
            return read_fp4(folder, module, scheme)
        codes = self._codes(folder, module, scheme, columns)
        scale, groups = _scale(folder, module, scheme, (rows, columns))
        zero = _zero(folder, module, scheme, rows)
        if zero is None and scheme.layout in PACKED:
            zero = torch.full((rows, 1), 2 ** (scheme.bits - 1), dtype=torch.int16)
        if zero is not None and groups is not None and zero.shape[1] == 1:
            zero = zero.expand(rows, scale.shape[1])
        return Decoded(codes, scale, (rows, columns), zero, groups)

    def _codes(self, folder: ModelFolder, module: str, scheme: WeightScheme, columns: int) -> torch.Tensor:
        if scheme.layout not in PACKED:
            return folder.tensor(f"{module}.weight")
        words = folder.tensor(f"{module}.weight_packed")
        dense = words.shape[1] == words_for(scheme.bits, columns)
        return (unpack_bits if dense else unpack_padded)(words, scheme.bits, columns)


def _packed_fault(folder: ModelFolder, module: str, scheme: WeightScheme) -> str | None:
    name, shape = f"{module}.weight_packed", f"{module}.weight_shape"
    problem = matrix_fault(folder, name) or tensor_fault(folder, shape, (torch.int64, torch.int32), ((2,),))
    if problem:
        return problem
    rows, columns = folder.tensor(shape).tolist()
    if not 0 < rows < 2**31 or not 0 < columns < 2**31:
        return f"{shape} says {rows} x {columns}"
    widths = {words_for(scheme.bits, columns), -(-columns // (32 // scheme.bits))}
    problem = tensor_fault(folder, name, (torch.int32,), [(rows, width) for width in sorted(widths)])
    return problem and f"{problem}, for {rows} x {columns} weights of {scheme.bits} bits"


def _plain_fault(folder: ModelFolder, module: str, scheme: WeightScheme) -> str | None:
    name = f"{module}.weight"
    if name not in folder and f"{module}.weight_packed" in folder:
        return f"{module} is packed, but the config says {scheme.layout}"
    problem = matrix_fault(folder, name)
    if problem:
        return problem
    found = folder.info(name)
    if found.dtype in FLOATS:
        return f"{name} is not quantized: it is stored as {str(found.dtype).removeprefix('torch.')}"
    wanted = torch.float8_e4m3fn if scheme.is_float else torch.int8
    return tensor_fault(folder, name, (wanted,), (found.shape,))


def _scale_shapes(scheme: WeightScheme, shape: tuple[int, int]) -> list[tuple[int, ...]]:
    rows, columns = shape
    if scheme.strategy == "tensor":
        return [(1,), (), (1, 1)]
    if scheme.strategy == "channel":
        return [(rows, 1)]
    if scheme.block is not None:
        return [(-(-rows // scheme.block[0]), -(-columns // scheme.block[1]))]
    return [(rows, -(-columns // scheme.group_size))]


def _grid_faults(folder: ModelFolder, module: str, scheme: WeightScheme, shape: tuple[int, int]) -> Iterator[str]:
    shapes = _scale_shapes(scheme, shape)
    name = f"{module}.weight_zero_point"
    faults = [tensor_fault(folder, f"{module}.weight_scale", FLOATS, shapes)]
    if not scheme.symmetric or name in folder:
        packed = scheme.layout in PACKED and scheme.strategy in ("channel", "group")
        words = [(words_for(scheme.bits, shape[0]), shapes[0][1])] if packed else shapes
        dtypes = (torch.int32,) if packed else (*_INTS, *FLOATS, torch.float8_e4m3fn)
        faults.append(tensor_fault(folder, name, dtypes, words))
    if scheme.has_g_idx:
        faults.append(tensor_fault(folder, f"{module}.weight_g_idx", (torch.int32, torch.int64), [(shape[1],)]))
    yield from (fault for fault in faults if fault)


def _scale(
    folder: ModelFolder, module: str, scheme: WeightScheme, shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[N, G], and the group of each column where they do not lie side by side."""
    (rows, columns), scale = shape, folder.tensor(f"{module}.weight_scale")
    if scheme.strategy == "tensor":
        return scale.reshape(1, 1).expand(rows, 1), None
    if scheme.block is not None:
        spread = scale.repeat_interleave(scheme.block[0], dim=0)[:rows]
        return spread, torch.arange(columns) // scheme.block[1]
    if scheme.has_g_idx:
        return scale, folder.tensor(f"{module}.weight_g_idx").long().clamp(0, scale.shape[1] - 1)
    return scale, None


def _zero(folder: ModelFolder, module: str, scheme: WeightScheme, rows: int) -> torch.Tensor | None:
    """int16 [N, G] in the codes' terms; None where there is none."""
    name = f"{module}.weight_zero_point"
    if name not in folder or scheme.is_float:
        return None
    stored = folder.tensor(name)
    if scheme.layout in PACKED and scheme.strategy in ("channel", "group"):
        return unpack_bits(stored.t(), scheme.bits, rows).t().to(torch.int16)
    signed = stored.to(torch.int16)
    signed = signed.reshape(1, 1).expand(rows, 1) if scheme.strategy == "tensor" else signed
    if scheme.block is not None:
        signed = signed.repeat_interleave(scheme.block[0], dim=0)[:rows]
    return signed + 2 ** (scheme.bits - 1) if scheme.layout in PACKED else signed

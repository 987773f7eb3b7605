"""quantrecipe's own layout (docs/formats.md): ``codes``, ``scale`` [N, G] and ``zero`` [N, G] of each module.

integers: codes int32 [N, ceil(K b / 32)], unsigned, zero in any float type, w = (code - 2^(b-1) - zero) scale.
float8: codes [N, K]. pairs: codes uint8 [N, K / 2], OliVe's nibbles, the earlier of two low.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.bits import unpack_bits, words_for
from quantrecipe.modeling.formats.decoded import Decoded
from quantrecipe.modeling.formats.reader import FLOATS, Reader, tensor_fault
from quantrecipe.modeling.formats.settings import integer, word

LAYOUTS = ("integers", "float8", "pairs")
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
#: OliVe: the nibble of a victim; the magnitudes of its neighbour's nibbles 1 to 7.
VICTIM, MAGNITUDES = 8, (0, 12, 16, 24, 32, 48, 64, 96)


class OwnReader(Reader):
    """Version 1."""

    name = "quantrecipe"
    marks: ClassVar[tuple[str, ...]] = ("codes",)
    suffixes: ClassVar[tuple[str, ...]] = ("codes", "scale", "zero")

    def __init__(self, config: Mapping[str, Any]) -> None:
        integer(config, "version", (1,))
        modules = config.get("modules")
        if not isinstance(modules, dict):
            raise ModelError("the quantization config has no modules")
        self._modules = modules

    def bits(self, module: str) -> int:
        """As the config says."""
        return integer(self._of(module), "num_bits", (2, 3, 4, 5, 6, 8))

    def shape(self, folder: ModelFolder, module: str) -> tuple[int, int]:
        """As the config says."""
        found = self._of(module).get("shape")
        if not isinstance(found, list) or [type(size) for size in found] != [int, int]:
            found = [0, 0]
        if not all(0 < size < 2**31 for size in found):
            raise ModelError(
                "the quantization config says shape",
                value=repr(self._of(module).get("shape"))[:60],
                limit="[rows, columns]",
            )
        return found[0], found[1]

    def faults(self, folder: ModelFolder, module: str) -> Iterator[str]:
        """Codes and scales must agree with the shape that the config says."""
        try:
            (rows, columns), layout = self.shape(folder, module), self._layout(module)
            width = {"integers": words_for(self.bits(module), columns), "float8": columns, "pairs": columns // 2}[
                layout
            ]
        except ModelError as error:
            yield error.line()
            return
        dtypes = {"integers": (torch.int32,), "float8": FLOAT8, "pairs": (torch.uint8,)}[layout]
        codes = tensor_fault(folder, f"{module}.codes", dtypes, ((rows, width),))
        groups = folder.info(f"{module}.scale").shape[-1:] if f"{module}.scale" in folder else (1,)
        scale = tensor_fault(folder, f"{module}.scale", FLOATS, ((rows, *groups),))
        faults = [codes, scale]
        if f"{module}.zero" in folder:
            faults.append(tensor_fault(folder, f"{module}.zero", FLOATS, ((rows, *groups),)))
        if not groups or columns % groups[0]:
            faults.append(f"{module}: {columns} columns in {groups} groups")
        yield from (fault for fault in faults if fault)

    def read(self, folder: ModelFolder, module: str) -> Decoded:
        """Signed codes."""
        shape, codes = self.shape(folder, module), folder.tensor(f"{module}.codes")
        layout = self._layout(module)
        if layout == "integers":
            bits = self.bits(module)
            codes = (unpack_bits(codes, bits, shape[1]).to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
        elif layout == "pairs":
            codes = pair_values(torch.stack([codes & 0xF, codes >> 4], dim=-1).flatten(1))
        zero = folder.tensor(f"{module}.zero").float() if f"{module}.zero" in folder else None
        return Decoded(codes, folder.tensor(f"{module}.scale"), shape, zero, product=torch.float32)

    def _of(self, module: str) -> Mapping[str, Any]:
        found = self._modules.get(module)
        if not isinstance(found, dict):
            raise ModelError("the quantization config says nothing of a quantized module", value=module)
        return found

    def _layout(self, module: str) -> str:
        layout = word(self._of(module), "layout", "")
        if layout not in LAYOUTS:
            raise ModelError("no reader for this layout", value=layout, limit=", ".join(LAYOUTS))
        return layout


def pair_values(nibbles: torch.Tensor) -> torch.Tensor:
    """int8 [N, K] of OliVe's nibbles: a mark is 0, and makes its neighbour an abfloat; all else is int4."""
    pairs = nibbles.view(len(nibbles), -1, 2).to(torch.int16)
    mark = pairs == VICTIM
    size = torch.tensor(MAGNITUDES, dtype=torch.int16)[(pairs & 7).long()]
    beside_mark = torch.where(pairs > 7, -size, size)
    plain = torch.where(pairs > 7, pairs - 16, pairs)
    return torch.where(mark, 0, torch.where(mark.flip(-1), beside_mark, plain)).flatten(1).to(torch.int8)

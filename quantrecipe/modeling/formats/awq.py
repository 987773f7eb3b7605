"""AWQ's GEMM files: qweight int32 [K, N / 8], qzeros int32 [K / g, N / 8], scales fp16 [K / g, N]; 4 bits.

Nibble i of word c holds column 8 c + ORDER[i]; zero points as they are (awq/utils/packing_utils.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.bits import unpack_bits
from quantrecipe.modeling.formats.decoded import Decoded
from quantrecipe.modeling.formats.reader import FLOATS, Reader, matrix_fault, tensor_fault
from quantrecipe.modeling.formats.settings import integer, word

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
#: Where column 8 c + j lies in its word.
INVERSE = (0, 4, 1, 5, 2, 6, 3, 7)


class AwqReader(Reader):
    """order: the nibble of each column; another one only to find out whether a file was packed wrongly."""

    name = "awq"
    marks: ClassVar[tuple[str, ...]] = ("qweight",)
    suffixes: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales")

    def __init__(self, config: Mapping[str, Any], order: tuple[int, ...] = INVERSE) -> None:
        version = word(config, "version", "gemm").lower()
        if version != "gemm":
            raise ModelError("no reader for this version of AWQ", value=version, limit="gemm")
        self._bits = integer(config, "bits", (4,), config.get("w_bit", 4))
        self.group_size = integer(config, "group_size", range(-1, 2**31), config.get("q_group_size", 128))
        self._order = list(order)

    def bits(self, module: str) -> int:
        """Four."""
        return self._bits

    def shape(self, folder: ModelFolder, module: str) -> tuple[int, int]:
        """From qweight."""
        columns, words = folder.info(f"{module}.qweight").shape
        return words * 8, columns

    def faults(self, folder: ModelFolder, module: str) -> Iterator[str]:
        """qweight gives N and K; the rest must agree."""
        problem = matrix_fault(folder, f"{module}.qweight")
        if problem:
            yield problem
            return
        columns, words = folder.info(f"{module}.qweight").shape
        size = self.group_size if self.group_size > 0 else columns
        if columns % size:
            yield f"{module}.qweight has {columns} rows, no multiple of the group size {size}"
            return
        wanted: list[tuple[str, tuple[torch.dtype, ...], tuple[int, ...]]] = [
            ("qweight", (torch.int32,), (columns, words)),
            ("qzeros", (torch.int32,), (columns // size, words)),
            ("scales", FLOATS, (columns // size, words * 8)),
        ]
        for suffix, dtypes, shape in wanted:
            problem = tensor_fault(folder, f"{module}.{suffix}", dtypes, (shape,))
            if problem:
                yield problem

    def read(self, folder: ModelFolder, module: str) -> Decoded:
        """Unsigned codes and zeros."""
        rows, columns = self.shape(folder, module)
        codes, zeros = (self._columns(folder.tensor(f"{module}.{part}"), rows) for part in ("qweight", "qzeros"))
        scales = folder.tensor(f"{module}.scales")
        return Decoded(
            codes.t().contiguous(), scales.t().contiguous(), (rows, columns),
            zeros.t().contiguous().to(torch.int16), product=scales.dtype,
        )  # fmt: skip

    def _columns(self, words: torch.Tensor, count: int) -> torch.Tensor:
        """Words [R, N / 8] -> codes [R, N]."""
        nibbles = unpack_bits(words, 4, count).view(len(words), -1, 8)
        return nibbles[:, :, self._order].flatten(1)

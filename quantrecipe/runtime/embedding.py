"""An embedding that keeps its table as codes: the rows that are looked up are dequantized, as a loader does."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from quantrecipe.modeling.formats import Decoded
from quantrecipe.runtime.layers import QuantLinear
from quantrecipe.runtime.nibbles import pack_nibbles, unpack_nibbles
from quantrecipe.runtime.pack import NoKernel, Target, unsigned

Tensor = torch.Tensor
PARTS = ("codes", "scale", "zero", "groups", "book")


class QuantEmbedding(nn.Module):
    """Rows of a table [N, K] in ``dtype``; codes of up to 4 bits lie two a byte. path, why: for the report."""

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    groups: Tensor | None
    book: Tensor | None
    path, why = "rows as codes", "the rows that are looked up are dequantized"

    def __init__(self, decoded: Decoded, num_bits: int, target: Target) -> None:
        super().__init__()
        self.num_bits, self.target = num_bits, target
        self._halves = num_bits <= 4 and not decoded.codes.is_floating_point()
        codes = pack_nibbles(decoded.codes) if self._halves else decoded.codes
        self._facts = replace(decoded, codes=decoded.codes[:0], scale=decoded.scale[:0], zero=None)
        parts = (codes, decoded.scale, decoded.zero, decoded.groups, decoded.book)
        for name, part in zip(PARTS, parts, strict=True):
            self.register_buffer(name, None if part is None else part.to(target.device), persistent=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the table."""
        return self._facts.shape

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens int64 [...] -> [..., K]."""
        wanted = ids.flatten()
        zero = None if self.zero is None else self.zero[wanted]
        shape = (len(wanted), self._facts.shape[1])
        rows = replace(
            self._facts, codes=self._rows(wanted), scale=self.scale[wanted], zero=zero, shape=shape,
            groups=self.groups, book=self.book,
        )  # fmt: skip
        return rows.weight(self.target.dtype).view(*ids.shape, shape[1])

    def _rows(self, wanted: Tensor) -> Tensor:
        rows, dtype = self.codes.view(torch.uint8)[wanted], self._facts.codes.dtype  # fp8 has no index everywhere
        if self._halves:
            return unpack_nibbles(rows, self._facts.shape[1], signed=dtype == torch.int8)
        flipped = self.codes.dtype == torch.int8 and dtype == torch.uint8
        return (rows ^ 128 if flipped else rows).view(dtype)

    def share(self, head: QuantLinear) -> None:
        """Take the codes of a tied head that holds the same table, a byte a code and row by row, as its own."""
        rows, columns = self.shape
        same = head.path == "weight-only" and head.num_bits == 8 and head.weight.device.type == "cpu"
        if same and head.weight.dim() == 2 and head.weight.shape[0] == rows and head.order is None:
            self.codes = head.weight[:, :columns]  # planes of 8 bits, or int8


def quant_embedding(decoded: Decoded, num_bits: int, target: Target) -> QuantEmbedding:
    """The embedding of a table. Raises NoKernel."""
    if tuple(decoded.codes.shape) != decoded.shape or len(decoded.scale) != decoded.shape[0]:
        raise NoKernel("scales run over the ends of rows")
    if decoded.book is None and not decoded.codes.is_floating_point():
        codes, zero, num_bits = unsigned(decoded, num_bits)
        middle = torch.full((1, 1), 2.0 ** (num_bits - 1)) if zero is None else zero
        decoded = replace(decoded, codes=codes, zero=middle.expand(decoded.scale.shape).contiguous())
    return QuantEmbedding(decoded, num_bits, target)

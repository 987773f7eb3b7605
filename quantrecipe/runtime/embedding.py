"""An embedding that keeps its table as codes, a byte each: rows that are looked up are dequantized as loaders do."""

from __future__ import annotations

import torch
from torch import nn

from quantrecipe.modeling.formats import Decoded
from quantrecipe.runtime.pack import NoKernel, Target

Tensor = torch.Tensor
PARTS = ("codes", "scale", "zero", "groups", "book")


class QuantEmbedding(nn.Module):
    """Rows of a table [N, K] in ``target.dtype``. path, why: for the report."""

    codes: Tensor
    scale: Tensor
    zero: Tensor | None
    groups: Tensor | None
    book: Tensor | None
    path, why = "rows as codes", "the rows that are looked up are dequantized"

    def __init__(self, decoded: Decoded, num_bits: int, target: Target) -> None:
        super().__init__()
        self.num_bits, self.target, self.shape = num_bits, target, decoded.shape
        self._product, self._rounds = decoded.product, decoded.rounds
        for name in PARTS:
            part: Tensor | None = getattr(decoded, name)
            self.register_buffer(name, None if part is None else part.to(target.device), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Tokens int64 [...] -> [..., K]."""
        wanted, columns = ids.flatten(), self.shape[1]
        codes = self.codes.view(torch.uint8)[wanted].view(self.codes.dtype)  # fp8 cannot be indexed everywhere
        zero = None if self.zero is None else self.zero[wanted]
        shape = len(wanted), columns
        rows = Decoded(
            codes, self.scale[wanted], shape, zero, self.groups, self.book, self._product, self._rounds
        )  # fmt: skip
        return rows.weight(self.target.dtype).view(*ids.shape, columns)


def quant_embedding(decoded: Decoded, num_bits: int, target: Target) -> QuantEmbedding:
    """The embedding of a table. Raises NoKernel."""
    if tuple(decoded.codes.shape) != decoded.shape or len(decoded.scale) != decoded.shape[0]:
        raise NoKernel("scales run over the ends of rows")
    return QuantEmbedding(decoded, num_bits, target)

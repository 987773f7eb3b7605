"""Dense packing of codes into int32 words: compressed-tensors' layout, compiled on a CPU."""

from __future__ import annotations

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32 as library_pack


def pack_to_int32(codes: torch.Tensor, bits: int, packed_dim: int = 1) -> torch.Tensor:
    """int8 codes [N, K] -> int32 [N, ceil(K b / 32)], or [ceil(N b / 32), K] along ``packed_dim`` 0."""
    if codes.device.type != "cpu":
        packed: torch.Tensor = library_pack(codes, bits, packed_dim=packed_dim)
        return packed
    if packed_dim == 0:
        return _pack_rows(codes.t().contiguous(), bits).t()
    return _pack_rows(codes.contiguous(), bits)


def _pack_rows(codes: torch.Tensor, bits: int) -> torch.Tensor:
    from quantrecipe.kernels.pack import pack_rows, pack_rows_evenly

    rows, columns = codes.shape
    words = torch.empty(rows, -(-columns * bits // 32), dtype=torch.int32)
    even = 32 % bits == 0 and columns * bits % 32 == 0
    (pack_rows_evenly if even else pack_rows)(codes.numpy(), bits, words.numpy())
    return words

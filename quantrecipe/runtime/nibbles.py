"""Codes of up to four bits, two a byte, along the last dimension; the kernels' own layouts are made for products."""

from __future__ import annotations

import torch


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Codes [..., C], int8 in [-8, 7] or uint8 up to 15 -> uint8 [..., ceil(C / 2)], the earlier in the low half."""
    whole = torch.nn.functional.pad(codes.view(torch.uint8), (0, codes.shape[-1] % 2))
    return (whole[..., ::2] & 15) | (whole[..., 1::2] << 4)


def unpack_nibbles(packed: torch.Tensor, columns: int, signed: bool) -> torch.Tensor:
    """Back to int8 or uint8 [..., columns]."""
    codes = torch.stack((packed & 15, packed >> 4), -1).flatten(-2)[..., :columns]
    return codes.bitwise_xor(8).view(torch.int8) - 8 if signed else codes

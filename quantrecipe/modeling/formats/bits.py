"""Codes out of 32-bit words, by plain bit arithmetic: shares nothing with the code that packs."""

from __future__ import annotations

import torch

#: Words that one step unpacks, so that wide words (3, 5, 6 bits) never need much memory.
_CHUNK = 1 << 20


def unpack_bits(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """int32 words [R, W] -> unsigned codes uint8 [R, count]: code i is bits i*b … of a row's bit stream."""
    words = words.contiguous()
    if bits in (2, 4, 8):
        parts = words.view(torch.uint8)
        mask = 2**bits - 1
        codes = torch.stack([(parts >> shift) & mask for shift in range(0, 8, bits)], dim=-1)
        return codes.reshape(len(words), -1)[:, :count].contiguous()
    rows = max(1, _CHUNK // max(words.shape[1], 1))
    found = [_stream(part, bits, count) for part in torch.split(words, rows)]
    return torch.cat(found) if found else torch.empty(0, count, dtype=torch.uint8)


def _stream(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    stream = torch.cat([words.to(torch.int64) & 0xFFFFFFFF, torch.zeros(len(words), 1, dtype=torch.int64)], dim=1)
    first_bit = torch.arange(count) * bits
    word, shift = first_bit // 32, first_bit % 32
    two_words = stream[:, word] | (stream[:, word + 1] << 32)
    codes: torch.Tensor = (two_words >> shift) & (2**bits - 1)
    return codes.to(torch.uint8)


def unpack_padded(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """As above where each word holds 32 // b whole codes and spare bits (compressed-tensors before PR 715)."""
    each, mask = 32 // bits, 2**bits - 1
    codes = torch.stack([(words >> (bits * index)) & mask for index in range(each)], dim=-1)
    return codes.reshape(len(words), -1)[:, :count].to(torch.uint8)


def words_for(bits: int, count: int) -> int:
    """Words of a dense stream of that many codes."""
    return -(-bits * count // 32)

"""torch's own layout of 4 bits on CPU, which ``_weight_int4pack_mm_for_cpu`` multiplies: packed, and read back.

packed uint8 [N / T, K, T / 2]: byte j of a tile's column k holds row j (low) and row j + T / 2 (high); T is 64 where
torch runs AVX512 and 32 where it runs AVX2. The grid [G, N, 2] holds scale and shift, w = (code - 8) scale + shift,
in x's type. What torch packs for a machine is not documented, so once a process it is compared with what is known
here.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor
WIDTHS = (64, 32)
#: Columns of a group that the product takes.
GROUPS = (32, 64, 128, 256)


def pack(codes: Tensor, width: int) -> Tensor:
    """Codes uint8 [N, K], N a multiple of ``width`` -> uint8 [N / width, K, width / 2]."""
    halves = codes.view(-1, 2, width // 2, codes.shape[1])
    return (halves[:, 0] | halves[:, 1] << 4).transpose(1, 2).contiguous()


def product(x: Tensor, packed: Tensor, group_size: int, grid: Tensor) -> Tensor:
    """x bf16 [M, K] -> [M, N]; sums in fp32, rounded once."""
    flat = packed.view(-1, packed.shape[1] // 2)
    found: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, flat, group_size, grid)
    return found


def grid_of(scales: Tensor, zeros: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scales and zero points [N, G] -> the grid [G, N, 2], and what its shifts lack, [N, G] (empty: nothing)."""
    if zeros is None or not zeros.numel():
        return torch.stack([scales.t(), torch.zeros_like(scales.t())], dim=2).contiguous(), scales.new_empty(0)
    exact = (8 - zeros.float()) * scales.float()
    shift = exact.to(scales.dtype)
    return torch.stack([scales.t(), shift.t()], dim=2).contiguous(), (exact - shift.float()).to(scales.dtype)


def _width() -> int:
    """Rows of a tile on this machine; 0 where torch packs, or multiplies, otherwise than known."""
    codes = (torch.arange(128 * 64, device="cpu") * 40503 >> 7 & 15).to(torch.uint8).view(128, 64)
    try:
        theirs = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.int(), 2)
        width = next((one for one in WIDTHS if torch.equal(pack(codes, one).view(128, 32), theirs)), 0)
        if not width:
            return 0
        x = torch.eye(64, device="cpu", dtype=torch.bfloat16)
        steps = torch.linspace(0.5, 2, 2 * 128 * 2, device="cpu").bfloat16().view(2, 128, 2)
        found = product(x, pack(codes, width), 32, steps)
    except (RuntimeError, AttributeError, NotImplementedError):
        return 0
    scale, shift = steps.float().repeat_interleave(32, 0).unbind(2)
    wanted = ((codes.t().float() - 8) * scale + shift).bfloat16()
    return width if torch.allclose(found, wanted, rtol=2**-7, atol=0) else 0


#: Found when this module is imported, since a fake tensor cannot ask.
WIDTH = _width()

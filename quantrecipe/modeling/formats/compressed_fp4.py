"""compressed-tensors' FP4: e2m1 codes, the earlier of two in the low nibble, of weight_packed uint8 [N, K / 2].

MXFP4: weight_scale uint8 [N, K / 32], e8m0: 2^(u - 127). NVFP4: weight_scale e4m3 [N, K / 16] over
weight_global_scale fp32 [1]. Loaders round the product to bf16 (compressed-tensors 0.19).
"""

from __future__ import annotations

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.compressed_config import NV, WeightScheme
from quantrecipe.modeling.formats.decoded import Decoded
from quantrecipe.modeling.formats.reader import matrix_fault, tensor_fault

BOOK = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def shape_fp4(folder: ModelFolder, module: str) -> tuple[int, int]:
    """(N, K): two weights a byte."""
    rows, half = folder.info(f"{module}.weight_packed").shape
    return rows, 2 * half


def fault_fp4(folder: ModelFolder, module: str, scheme: WeightScheme) -> str | None:
    """What is missing or of another shape; None where nothing is."""
    name = f"{module}.weight_packed"
    problem = matrix_fault(folder, name) or tensor_fault(folder, name, (torch.uint8,), (folder.info(name).shape,))
    if problem:
        return problem
    rows, columns = shape_fp4(folder, module)
    if columns % scheme.group_size:
        return f"{module}: {columns} columns are no multiple of the group size {scheme.group_size}"
    kind = torch.float8_e4m3fn if scheme.layout == NV else torch.uint8
    scale = tensor_fault(folder, f"{module}.weight_scale", (kind,), ((rows, columns // scheme.group_size),))
    if scale or scheme.layout != NV:
        return scale
    return tensor_fault(folder, f"{module}.weight_global_scale", (torch.float32,), ((1,), ()))


def read_fp4(folder: ModelFolder, module: str, scheme: WeightScheme) -> Decoded:
    """Codes by the table, scales in fp32."""
    packed = folder.tensor(f"{module}.weight_packed")
    codes = torch.stack([packed & 0xF, packed >> 4], dim=-1).flatten(1)
    scale = folder.tensor(f"{module}.weight_scale").float()
    whole = folder.tensor(f"{module}.weight_global_scale").reshape(1) if scheme.layout == NV else None
    scale = torch.exp2(scale - 127) if whole is None else scale / whole
    book = torch.tensor([*BOOK, *(-value for value in BOOK)])
    shape = shape_fp4(folder, module)
    return Decoded(codes, scale, shape, book=book, product=torch.float32, rounds=torch.bfloat16)

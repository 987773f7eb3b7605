"""GPTQ files (AutoGPTQ, GPTQModel): v1 ``gptq`` stores zero points minus one, ``gptq_v2`` as they are.

qweight int32 [K b / 32, N], packed along K; qzeros int32 [G, N b / 32], along N; scales fp16 [G, N]; g_idx int32 [K].
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.bits import unpack_bits, words_for
from quantrecipe.modeling.formats.decoded import Decoded
from quantrecipe.modeling.formats.reader import FLOATS, Reader, matrix_fault, tensor_fault
from quantrecipe.modeling.formats.settings import flag, integer, word

BITS = (2, 3, 4, 5, 6, 8)


class GptqReader(Reader):
    """version 1 adds one to each stored zero point, within its b bits."""

    name = "gptq"
    marks: ClassVar[tuple[str, ...]] = ("qweight",)
    suffixes: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales", "g_idx")

    def __init__(self, config: Mapping[str, Any]) -> None:
        form = word(config, "checkpoint_format", word(config, "format", "gptq"))
        self.version = 2 if form == "gptq_v2" else 1
        self._bits = integer(config, "bits", BITS)
        self.group_size = integer(config, "group_size", range(-1, 2**31), -1)
        self.symmetric = flag(config, "sym", True)
        self._overrides = _overrides(config)

    def bits(self, module: str) -> int:
        """The config's, or the one that ``dynamic`` has for this module."""
        return next((bits for pattern, bits in self._overrides if pattern.match(module)), self._bits)

    def shape(self, folder: ModelFolder, module: str) -> tuple[int, int]:
        """N from qweight; K from g_idx, or from qweight's words."""
        words, rows = folder.info(f"{module}.qweight").shape
        if f"{module}.g_idx" in folder:
            return rows, folder.info(f"{module}.g_idx").shape[0]
        return rows, words * 32 // self.bits(module)

    def faults(self, folder: ModelFolder, module: str) -> Iterator[str]:
        """qweight gives N and K; the rest must agree with it and with the config."""
        problem = matrix_fault(folder, f"{module}.qweight")
        if problem:
            yield problem
            return
        bits, name = self.bits(module), f"{module}.g_idx"
        words, rows = folder.info(f"{module}.qweight").shape
        columns = folder.info(name).shape[0] if name in folder and folder.info(name).shape else words * 32 // bits
        groups = -(-columns // self.group_size) if self.group_size > 0 else 1
        wanted: list[tuple[str, tuple[torch.dtype, ...], tuple[int, ...]]] = [
            ("qweight", (torch.int32,), (words_for(bits, columns), rows)),
            ("scales", FLOATS, (groups, rows)),
            ("qzeros", (torch.int32,), (groups, words_for(bits, rows))),
            ("g_idx", (torch.int32, torch.int64), (columns,)),
        ]
        for suffix, dtypes, shape in wanted:
            problem = tensor_fault(folder, f"{module}.{suffix}", dtypes, (shape,))
            if problem:
                yield problem if suffix != "qweight" else f"{problem}, for {bits} bits and {columns} columns"

    def read(self, folder: ModelFolder, module: str) -> Decoded:
        """Unsigned codes and zeros. g_idx is taken modulo the groups; that it is in range is checked elsewhere."""
        bits, (rows, columns) = self.bits(module), self.shape(folder, module)
        scales = folder.tensor(f"{module}.scales")
        groups = folder.tensor(f"{module}.g_idx").long()
        zeros = unpack_bits(folder.tensor(f"{module}.qzeros"), bits, rows)
        if self.version == 1:
            zeros = (zeros + 1) & (2**bits - 1)
        codes = unpack_bits(folder.tensor(f"{module}.qweight").t(), bits, columns)
        return Decoded(
            codes, scales.t().contiguous(), (rows, columns), zeros.t().contiguous().to(torch.int16),
            None if _plain(groups, len(scales)) else groups.clamp(0, len(scales) - 1), product=scales.dtype,
        )  # fmt: skip


def _plain(groups: torch.Tensor, count: int) -> bool:
    """Whether columns lie in their groups in order."""
    size = -(-len(groups) // count)
    return len(groups) == size * count and torch.equal(groups, torch.arange(len(groups)) // size)


def _overrides(config: Mapping[str, Any]) -> list[tuple[re.Pattern[str], int]]:
    """GPTQModel's ``dynamic``: patterns ("+:…" or bare) with their own bits."""
    dynamic = config.get("dynamic")
    found = []
    for pattern, changes in dynamic.items() if isinstance(dynamic, dict) else ():
        if isinstance(changes, dict) and "bits" in changes and not pattern.startswith("-:"):
            found.append((_compiled(pattern.removeprefix("+:")), integer(changes, "bits", BITS)))
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error:
        return re.compile(re.escape(pattern))

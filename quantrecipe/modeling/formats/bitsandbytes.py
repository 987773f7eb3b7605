"""bitsandbytes: int8 rows (``SCB``) and blocks of nf4 or fp4, with the block maxima plain or quantized once more.

4 bits: ``weight`` uint8 [N K / 2, 1], the earlier of two weights in the high nibble, row by row;
``weight.absmax`` fp32 [N K / B]; ``weight.quant_map`` fp32 [16]; ``weight.quant_state.bitsandbytes__nf4`` uint8:
JSON with quant_type, blocksize, dtype, shape. Twice quantized: ``weight.absmax`` uint8, its value
nested_quant_map[u] * nested_absmax of its block of 256 + nested_offset. int8: ``weight`` int8 [N, K] *
``SCB`` fp32 [N] / 127. (bitsandbytes 0.50.2, functional.py: QuantState, quantize_4bit; backends/default/ops.py.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.decoded import Decoded
from quantrecipe.modeling.formats.reader import Reader, matrix_fault, tensor_fault
from quantrecipe.modeling.formats.settings import flag, integer, pair, word
from quantrecipe.safe_json import parse_json

STATES = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
_STORAGE = (torch.uint8, torch.bfloat16, torch.float16, torch.float32)
_NESTED = ("weight.nested_absmax", "weight.nested_quant_map")


class Int8Reader(Reader):
    """LLM.int8: one scale a row."""

    name = "bitsandbytes"
    marks: ClassVar[tuple[str, ...]] = ("SCB",)
    suffixes: ClassVar[tuple[str, ...]] = ("weight", "SCB", "weight_format")

    def bits(self, module: str) -> int:
        """Eight."""
        return 8

    def shape(self, folder: ModelFolder, module: str) -> tuple[int, int]:
        """That of the weight."""
        rows, columns = folder.info(f"{module}.weight").shape
        return rows, columns

    def faults(self, folder: ModelFolder, module: str) -> Iterator[str]:
        """weight int8 [N, K], SCB fp32 [N]."""
        name = f"{module}.weight"
        problem = matrix_fault(folder, name)
        if problem is None:
            rows, columns = folder.info(name).shape
            problem = tensor_fault(folder, name, (torch.int8,), ((rows, columns),)) or tensor_fault(
                folder, f"{module}.SCB", (torch.float32,), ((rows,),)
            )
        if problem:
            yield problem

    def read(self, folder: ModelFolder, module: str) -> Decoded:
        """Signed codes; the scale is SCB / 127 in fp32."""
        scale = (folder.tensor(f"{module}.SCB") * (1 / 127)).unsqueeze(1)
        codes = folder.tensor(f"{module}.weight")
        return Decoded(codes, scale, self.shape(folder, module), product=torch.float32)


class Bits4Reader(Reader):
    """nf4 and fp4."""

    name = "bitsandbytes"
    marks: ClassVar[tuple[str, ...]] = STATES
    suffixes: ClassVar[tuple[str, ...]] = ("weight", "weight.absmax", "weight.quant_map", *_NESTED, *STATES)

    def bits(self, module: str) -> int:
        """Four."""
        return 4

    def shape(self, folder: ModelFolder, module: str) -> tuple[int, int]:
        """From the quantization state."""
        rows, columns = _state(folder, module)["shape"]
        return int(rows), int(columns)

    def faults(self, folder: ModelFolder, module: str) -> Iterator[str]:
        """Bytes of codes, and as many maxima as blocks, flat."""
        try:
            state = _state(folder, module)
        except ModelError as error:
            yield error.line()
            return
        weights = state["shape"][0] * state["shape"][1]
        blocks = -(-weights // state["blocksize"])
        yield from _missing_or_odd(folder, module, (weights + 1) // 2)
        nested = "nested_blocksize" in state
        wanted: list[tuple[str, torch.dtype, int]] = [
            ("weight.quant_map", torch.float32, 16),
            ("weight.absmax", torch.uint8 if nested else torch.float32, blocks),
        ]
        if nested:
            wanted += [
                ("weight.nested_absmax", torch.float32, -(-blocks // state["nested_blocksize"])),
                ("weight.nested_quant_map", torch.float32, 256),
            ]
        for suffix, dtype, count in wanted:
            problem = tensor_fault(folder, f"{module}.{suffix}", (dtype,), ((count,),))
            if problem:
                yield problem + _repacked(folder, module, suffix)

    def read(self, folder: ModelFolder, module: str) -> Decoded:
        """Codes [blocks, B], one scale each, filled up with zeros to whole blocks."""
        state = _state(folder, module)
        size = state["blocksize"]
        data = folder.tensor(f"{module}.weight").contiguous().view(torch.uint8).flatten()
        codes = torch.stack([data >> 4, data & 15], dim=-1).flatten()
        absmax = _absmax(folder, module, state)
        codes = torch.nn.functional.pad(codes, (0, len(absmax) * size - len(codes)))
        book = folder.tensor(f"{module}.weight.quant_map")
        shape = (int(state["shape"][0]), int(state["shape"][1]))
        return Decoded(codes.view(-1, size), absmax.unsqueeze(1), shape, book=book, product=torch.float32)


def _missing_or_odd(folder: ModelFolder, module: str, nbytes: int) -> Iterator[str]:
    name = f"{module}.weight"
    if name not in folder:
        yield f"{name} is missing"
    elif folder.info(name).dtype not in _STORAGE or folder.info(name).nbytes != nbytes:
        yield f"{name} has {folder.info(name).nbytes} bytes of codes, not {nbytes}"


def _repacked(folder: ModelFolder, module: str, suffix: str) -> str:
    """What bitsandbytes' first forward pass on a CPU leaves of the maxima: bf16 [K / B, N]."""
    name = f"{module}.{suffix}"
    if suffix != "weight.absmax" or name not in folder or len(folder.info(name).shape) != 2:
        return ""
    return ": saved after a forward pass on a CPU, which repacks it in place"


def _state(folder: ModelFolder, module: str) -> dict[str, Any]:
    """The JSON that the state tensor holds, checked. Raises ModelError."""
    name = next((f"{module}.{state}" for state in STATES if f"{module}.{state}" in folder), None)
    if name is None or folder.info(name).dtype != torch.uint8 or folder.info(name).nbytes > 4096:
        raise ModelError(f"{module}.weight has no readable quantization state")
    state = parse_json(bytes(folder.tensor(name).flatten().tolist()), name)
    if not isinstance(state, dict):
        raise ModelError("the quantization state is no object", value=name)
    found: dict[str, Any] = {"blocksize": integer(state, "blocksize", [2**n for n in range(5, 13)])}
    found |= {"shape": pair(state, "shape"), "quant_type": word(state, "quant_type", "")}
    if f"bitsandbytes__{found['quant_type']}" != name.rpartition(".")[2]:
        raise ModelError("the quantization state names another type", value=found["quant_type"], limit=name)
    if "nested_blocksize" in state:
        found["nested_blocksize"] = integer(state, "nested_blocksize", [2**n for n in range(5, 13)])
        offset = state.get("nested_offset")
        if not isinstance(offset, float | int) or not abs(offset) < 1e30:
            raise ModelError("the quantization state has no finite nested_offset", value=name)
        found["nested_offset"] = float(offset)
    return found


def _absmax(folder: ModelFolder, module: str, state: Mapping[str, Any]) -> torch.Tensor:
    """The block maxima in fp32."""
    stored = folder.tensor(f"{module}.weight.absmax")
    if "nested_blocksize" not in state:
        return stored
    values = folder.tensor(f"{module}.weight.nested_quant_map")[stored.long()]
    scale = folder.tensor(f"{module}.weight.nested_absmax").repeat_interleave(state["nested_blocksize"])
    absmax: torch.Tensor = values * scale[: len(values)] + state["nested_offset"]
    return absmax


def bitsandbytes_reader(config: Mapping[str, Any]) -> Reader:
    """The reader for what the config says it loads: 8 bits or 4."""
    if flag(config, "load_in_8bit", False) or flag(config, "_load_in_8bit", False):
        return Int8Reader()
    return Bits4Reader()

"""The CUDA kernels as data: where each is written, its variants, the devices it needs and what it may use of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

from quantrecipe.errors import QuantRecipeError, did_you_mean

SOURCES = Path(__file__).parent / "csrc"
ARCHITECTURES = (80, 89, 90)  # what CI compiles for
SHARED_LIMIT = {
    80: 163 * 1024,
    86: 99 * 1024,
    89: 99 * 1024,
    90: 227 * 1024,
}  # bytes a block; CUDA C++ guide, table 30
Choices = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One ``extern "C" __global__`` function of the name, and the macros that make its variants.

    threads: the greatest block that it is launched with. shared: the most dynamic shared memory, in bytes.
    refused: combinations of macros that there are not.
    """

    name: str
    file: str
    does: str
    threads: int
    choices: Choices
    shared: int = 0
    least_sm: int = 80
    refused: tuple[tuple[tuple[str, str], ...], ...] = ()

    def variants(self) -> Iterator[Variant]:
        """Every combination of the choices that is not refused."""
        names = [name for name, _ in self.choices]
        for values in product(*(values for _, values in self.choices)):
            macros = tuple(zip(names, values, strict=True))
            if not any(set(pairs) <= set(macros) for pairs in self.refused):
                yield Variant(self, macros)


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel with its macros: what is compiled, cached and launched."""

    kernel: Kernel
    macros: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        """Such as ``quantize_pack SCALAR=f16 BITS=4``."""
        return " ".join([self.kernel.name, *(f"{name}={value}" for name, value in self.macros)])

    @property
    def source(self) -> Path:
        """The file that it is compiled from."""
        return SOURCES / self.kernel.file


def options(**choices: tuple[str | int, ...]) -> Choices:
    """Choices of macros, their values as text."""
    return tuple((name, tuple(map(str, values))) for name, values in choices.items())


FLOATS = ("f16", "bf16")
WIDTHS = (2, 3, 4, 5, 6, 8)

KERNELS: tuple[Kernel, ...] = (
    Kernel(
        name="quantize_pack",
        file="quantize_pack.cu",
        does="scales, zero points and packed codes of a weight in one pass",
        threads=256,
        choices=options(SCALAR=FLOATS, FP8=(0, 1), BITS=(2, 3, 4, 5, 6, 8), HELD=(2, 4)),
        refused=tuple((("FP8", "1"), ("BITS", str(bits))) for bits in (2, 3, 4, 5, 6)),
    ),
    Kernel(
        name="quantize_activation",
        file="quantize_activation.cu",
        does="codes and scales of inputs, a token or a group of one, SmoothQuant's factors on the way",
        threads=256,
        choices=options(SCALAR=FLOATS, FP8=(0, 1), HELD=(2, 4)),
    ),
    Kernel(
        name="dequantize",
        file="dequantize.cu",
        does="packed weights to 16 bits, for checks and for many rows of inputs",
        threads=256,
        choices=options(SCALAR=FLOATS, BITS=(2, 3, 4, 5, 6, 8)),
    ),
    Kernel(
        name="gptq_block",
        file="gptq_block.cu",
        does="128 columns of GPTQ for a tile of rows, the factor's block in shared memory",
        threads=256,
        choices=(),
        shared=128 * 128 * 4,
    ),
    Kernel(
        name="gemv_wNa16",
        file="gemv_wNa16.cu",
        does="up to 8 rows of x by packed weights, dequantized in registers",
        threads=256,
        choices=options(SCALAR=FLOATS, BITS=WIDTHS, ZEROS=(0, 1), FINE=(0, 1)),
    ),
    Kernel(
        name="gemm_wNa16",
        file="gemm_wNa16.cu",
        does="x by packed weights, dequantized in registers: w4a16, w8a16 and the other widths",
        threads=256,
        choices=options(SCALAR=FLOATS, BITS=WIDTHS, ZEROS=(0, 1), ROWS=(16, 32, 64)),
        shared=96 * 1024,
    ),
    Kernel(
        name="gemm_w8a8",
        file="gemm_w8a8.cu",
        does="int8 x by int8 weights, scales, zero points and bias at the end; LLM.int8's outliers beside them",
        threads=256,
        choices=options(SCALAR=FLOATS, ROWS=(16, 64, 128), OUTLIERS=(0, 1)),
        shared=96 * 1024,
    ),
    Kernel(
        name="gemm_w4a8",
        file="gemm_w4a8.cu",
        does="int8 x by int4 weights, made int8 in registers: a channel's codes or two levels of groups",
        threads=256,
        choices=options(SCALAR=FLOATS, GROUPED=(0, 1), ROWS=(8, 16, 32, 64)),
        shared=64 * 1024,
    ),
    Kernel(
        name="llm_int8_quantize",
        file="llm_int8.cu",
        does="codes of x below LLM.int8's threshold, and the columns that pass it",
        threads=256,
        choices=options(SCALAR=FLOATS),
    ),
)


@lru_cache(maxsize=512)
def variant(name: str, **macros: str | int) -> Variant:
    """The variant of kernel ``name`` with these macros; a QuantRecipeError names what there is instead."""
    kernel = next((kernel for kernel in KERNELS if kernel.name == name), None)
    if kernel is None:
        known = [kernel.name for kernel in KERNELS]
        raise QuantRecipeError("no such kernel", value=name, remedy=did_you_mean(name, known))
    wanted = {name: str(value) for name, value in macros.items()}
    for one in kernel.variants():
        if dict(one.macros) == wanted:
            return one
    limit = ", ".join(f"{name} of {'|'.join(values)}" for name, values in kernel.choices)
    raise QuantRecipeError(f"no such variant of {name}", value=wanted, limit=limit)

"""What is timed on a GPU: products by layers of Llama-3 8B and 70B, with the aims they are held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: [N, K] of the linear layers.
SMALL = {"q": (4096, 4096), "k": (1024, 4096), "up": (14336, 4096), "down": (4096, 14336)}
LARGE = {"q": (8192, 8192), "k": (1024, 8192), "up": (28672, 8192), "down": (8192, 28672)}
MODELS = {"8B": SMALL, "70B": LARGE}
GREAT = 4096 * 14336  # weights from which gemv is held against the bandwidth
GROUP = 128
DEVICE = "cuda"


@dataclass(frozen=True, slots=True)
class Case:
    """least: what the aim asks of ``measure``; None: reported. bits, activation_bits: of the product."""

    kernel: str
    model: str
    layer: str
    m: int
    bits: int
    activation_bits: int
    measure: str
    least: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """N, K."""
        return MODELS[self.model][self.layer]

    @property
    def label(self) -> str:
        """As a table names it."""
        n, k = self.shape
        return f"{self.kernel} M={self.m} {n} x {k} ({self.model} {self.layer})"

    @property
    def aim(self) -> str:
        """In words."""
        return "reported" if self.least is None else f">= {self.least:g} {MEASURES[self.measure]}"


MEASURES = {"bandwidth": "of copy bandwidth", "bf16": "x cuBLAS bf16", "w8a8": "x gemm_w8a8"}


def cases() -> Iterator[Case]:
    """All, in the order of the table."""
    for model, layers in MODELS.items():
        for layer, (n, k) in layers.items():
            great = n * k >= GREAT
            yield Case("gemv_w4a16", model, layer, 1, 4, 16, "bandwidth", 0.85 if great else None)
            for bits in (2, 3, 5, 6, 8):
                yield Case(f"gemv_w{bits}a16", model, layer, 1, bits, 16, "bandwidth", None)
            yield Case("gemv_w4a16", model, layer, 8, 4, 16, "bf16", 1.0)
            for m in (16, 32, 64, 128, 256):
                yield Case("gemm_w4a16", model, layer, m, 4, 16, "bf16", _least_w4a16(model, m))
                yield Case("gemm_w8a16", model, layer, m, 8, 16, "bf16", None)
            for m in (1, 16, 64, 512, 2048):
                yield Case("gemm_w8a8", model, layer, m, 8, 8, "bf16", 1.5 if m >= 512 else None)
            for m in (1, 8, 16, 32, 64):
                yield Case("gemm_w4a8", model, layer, m, 4, 8, "w8a8", 1.0)
            for m in (1, 32, 512):
                yield Case("llm_int8", model, layer, m, 8, 16, "bf16", None)


def _least_w4a16(model: str, m: int) -> float | None:
    if m > 64:
        return None
    return {"8B": 2.5, "70B": 3.0}[model] if m == 16 else 1.0

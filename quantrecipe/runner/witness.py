"""Whether a reloaded checkpoint computes what the in-memory quantized model computed.

The two run the same products in another order and in other shapes, so that their logits differ by rounding.
How much rounding matters here is measured, not guessed: the reloaded model computes the same tokens once more
in the next wider type, and the distance between its own two answers is the effect of rounding in this model.
Two computations that both round lie within about twice that distance of each other; the limit is four times,
which is sixteen times in KL, since KL grows with the square. Weights themselves are compared bit for bit
elsewhere, so this need only catch what they cannot show: inputs rounded otherwise, a config read otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from quantrecipe.modeling.divergence import kl_divergence
from quantrecipe.runner.sources import Source

SLACK = 4.0
#: A KL that no harm hides in; where inputs are rounded to int8, a single code that tips over moves it by 1e-9.
LEAST_KL = 1e-8


def compare_witness(source: Source, path: Path, dtype: torch.dtype) -> dict[str, Any]:
    """KL and top-1 agreement between the saved logits and the loader's, with limits measured on the spot.

    The file holds ``tokens`` int64 [sequences, length] and ``logits`` fp32 [sequences, length, vocabulary];
    dtype: what both were computed in.
    """
    held = load_file(path)
    tokens, saved = held["tokens"], held["logits"].double()
    found = source.logits(tokens, dtype)
    finer = source.logits(tokens, torch.float64 if dtype == torch.float32 else torch.float32)
    noise = float(kl_divergence(finer, found).mean())
    report: dict[str, Any] = {
        "tokens": tokens.numel(),
        "kl": float(kl_divergence(saved, found).mean()),
        "kl_limit": max(SLACK**2 * noise, LEAST_KL),
        "kl_rounding": noise,
        "agreement": float((saved.argmax(-1) == found.argmax(-1)).double().mean()),
        "flips_unexplained": _unexplained_flips(saved, found, finer),
    }
    report["faults"] = _faults(report)
    return report


def _faults(report: dict[str, Any]) -> list[str]:
    faults = []
    if not report["kl"] <= report["kl_limit"]:
        limit = f"{report['kl_limit']:.2e}"
        faults.append(f"logits differ from the in-memory model's by KL {report['kl']:.2e}; rounding explains {limit}")
    if report["flips_unexplained"]:
        faults.append(f"{report['flips_unexplained']} most likely tokens changed beyond what rounding explains")
    return faults


def _unexplained_flips(saved: torch.Tensor, found: torch.Tensor, finer: torch.Tensor) -> int:
    """Positions whose most likely token changed although the two best lie further apart than rounding moves them."""
    best = saved.argmax(-1)
    flipped = best != found.argmax(-1)
    gap = found.amax(-1) - found.gather(-1, best.unsqueeze(-1)).squeeze(-1)
    moved = (finer - found).abs().amax()
    return int((flipped & (gap > SLACK * moved)).sum())

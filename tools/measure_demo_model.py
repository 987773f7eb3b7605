"""Measure what round-to-nearest costs the demo model, on held-out text and on text from another source.

    python tools/measure_demo_model.py --model quantrecipe/demo/model --texts quantrecipe/demo/texts

Every linear layer of the decoder is rounded; embedding and head stay as they are. Rounding is symmetric, as
compressed-tensors does it: codes -2^(b-1) .. 2^(b-1)-1, scale = absmax / (2^(b-1) - 1/2). The relative increase
in perplexity comes with a 95 % interval: a t interval over the paired differences in loss of blocks of
contiguous windows, since neighbouring windows are from the same document and not independent.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

DOCUMENT_SEPARATOR = "\n\n\n"
BLOCKS = 30


@dataclass(frozen=True)
class Rounding:
    """A bit width and the number of inputs that share a scale; None is a whole output channel."""

    bits: int
    group: int | None = None

    @property
    def label(self) -> str:
        return f"{self.bits}-bit, " + (f"group {self.group}" if self.group else "per channel")


ROUNDINGS = (Rounding(8), Rounding(4), Rounding(4, 64), Rounding(3), Rounding(2))


def round_to_nearest(weight: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """The weight with every value moved to its nearest code."""
    rows = weight.reshape(-1, rounding.group or weight.shape[1])
    half = 2 ** (rounding.bits - 1)
    scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / (half - 0.5)
    return ((rows / scale).round().clamp(-half, half - 1) * scale).reshape(weight.shape)


def rounded(model: nn.Module, rounding: Rounding) -> nn.Module:
    """A copy of the model, its decoder's linear layers rounded."""
    result = copy.deepcopy(model)
    for name, module in result.named_modules():
        if isinstance(module, nn.Linear) and not name.endswith("lm_head"):
            module.weight.data = round_to_nearest(module.weight.data, rounding)
    return result


def read_windows(tokenizer: Any, file: Path, length: int, max_tokens: int) -> torch.Tensor:
    """Documents end to end, each after its <s>, cut into windows that begin with <s>.

    Where there are more than `max_tokens`, windows are taken at even distances, so that each source keeps its share.
    """
    documents = file.read_text("utf-8").strip().split(DOCUMENT_SEPARATOR)
    stream = [token for ids in tokenizer(documents, verbose=False).input_ids for token in ids]
    body = torch.tensor(stream[: len(stream) // (length - 1) * (length - 1)]).view(-1, length - 1)
    kept = min(len(body), max_tokens // (length - 1))
    body = body[torch.linspace(0, len(body) - 1, kept).round().long()]
    return torch.cat([torch.full((len(body), 1), tokenizer.bos_token_id), body], dim=1)


@torch.no_grad()
def window_losses(model: nn.Module, rows: torch.Tensor, batch: int = 4) -> np.ndarray:
    """The mean loss of each window, in nats per token."""
    losses = []
    for part in rows.split(batch):
        logits = model(input_ids=part, use_cache=False).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.transpose(1, 2).float(), part[:, 1:], reduction="none")
        losses.append(loss.mean(1))
    return torch.cat(losses).double().numpy()


def relative_increase(original: np.ndarray, changed: np.ndarray) -> dict[str, float]:
    """Relative increase in perplexity and its 95 % interval; windows at the end fill no block and are left out."""
    blocks = min(BLOCKS, len(original))
    size = len(original) // blocks
    difference = (changed - original)[: blocks * size].reshape(blocks, size).mean(1)
    spread = student.ppf(0.975, blocks - 1) * difference.std(ddof=1) / math.sqrt(blocks)
    centre = float((changed - original).mean())
    return {"increase": math.expm1(centre), "low": math.expm1(centre - spread), "high": math.expm1(centre + spread)}


def unigram_perplexity(counts: np.ndarray, rows: torch.Tensor) -> float:
    """Of token frequencies in the training text (add-one smoothed), on the same predictions."""
    log_probability = np.log((counts + 1) / (counts + 1).sum())
    return float(np.exp(-log_probability[rows[:, 1:].flatten().numpy()].mean()))


def measure(model: nn.Module, texts: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Perplexity of the original on each text, and of each rounding relative to it."""
    original = {name: window_losses(model, rows) for name, rows in texts.items()}
    results: dict[str, Any] = {"original": {name: math.exp(loss.mean()) for name, loss in original.items()}}
    for rounding in ROUNDINGS:
        candidate = rounded(model, rounding)
        losses = {name: window_losses(candidate, rows) for name, rows in texts.items()}
        results[rounding.label] = {
            name: {"perplexity": math.exp(loss.mean()), **relative_increase(original[name], loss)}
            for name, loss in losses.items()
        }
        print(rounding.label, json.dumps(results[rounding.label]), flush=True)
    return results


def table(results: dict[str, Any], names: list[str]) -> str:
    """The results as Markdown."""
    header = ["weights", *(f"{name}: perplexity | {name}: increase (95 % interval)" for name in names)]
    lines = ["| " + " | ".join(header) + " |", "|---" * (1 + 2 * len(names)) + "|"]
    lines.append("| bfloat16 | " + " | ".join(f"{results['original'][name]:.2f} | " for name in names) + " |")
    for rounding in ROUNDINGS:
        cells = [rounding.label]
        for name in names:
            row = results[rounding.label][name]
            increase, low, high = (f"{100 * row[key]:+.2f}" for key in ("increase", "low", "high"))
            cells += [f"{row['perplexity']:.2f}", f"{increase} % ({low} to {high})"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--names", nargs="+", default=["heldout", "jargon"])
    parser.add_argument("--token-counts", type=Path, help="what train_demo_model.py wrote; for the unigram baseline")
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=150_000, help="of each text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the results here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    texts = {
        name: read_windows(tokenizer, args.texts / f"{name}.txt", args.sequence_length, args.max_tokens)
        for name in args.names
    }
    results = measure(model, texts)
    results["tokens"] = {name: rows[:, 1:].numel() for name, rows in texts.items()}
    if args.token_counts:
        counts = np.loadtxt(args.token_counts)
        results["unigram"] = {name: unigram_perplexity(counts, rows) for name, rows in texts.items()}
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    print(table(results, args.names))
    print({key: results[key] for key in ("tokens", "unigram") if key in results})


if __name__ == "__main__":
    main()

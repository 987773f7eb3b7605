"""Signed-gradient rounding by auto-round, in its own environment: autoround_speed.py MODEL TOKENS.json.

4 bits, groups of 64, 100 steps of one window, as many as zq-local takes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Quantize and save; print the CPU seconds as JSON."""
    torch.set_num_threads(1)
    tokens = torch.tensor(json.loads(Path(sys.argv[2]).read_text()))
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    rounder = AutoRound(
        model, AutoTokenizer.from_pretrained(sys.argv[1]), bits=4, group_size=64, sym=True,
        dataset=[row[None] for row in tokens], nsamples=len(tokens), seqlen=tokens.shape[1], iters=100, batch_size=1,
        seed=0, device_map="cpu", enable_torch_compile=False,
    )  # fmt: skip
    began = time.process_time()
    rounder.quantize_and_save(output_dir="out", format="auto_gptq")
    print(json.dumps({"cpu_seconds": time.process_time() - began}))


if __name__ == "__main__":
    main()

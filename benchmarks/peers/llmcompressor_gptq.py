"""GPTQ by llm-compressor, in its own environment: llmcompressor_gptq.py MODEL TOKENS.json OUT BITS GROUP BATCH."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Load, quantize, save; print the seconds of the oneshot call as the last line of JSON."""
    model_path, tokens_path, out, bits, group, batch = sys.argv[1:]
    torch.set_num_threads(2)
    windows = json.loads(Path(tokens_path).read_text())
    data = Dataset.from_dict({"input_ids": windows, "attention_mask": [[1] * len(w) for w in windows]})
    weights = {"num_bits": int(bits), "type": "int", "symmetric": True, "strategy": "group", "group_size": int(group)}
    modifier = GPTQModifier(
        config_groups={"main": {"targets": ["Linear"], "weights": weights}}, ignore=["lm_head"], dampening_frac=0.01
    )
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype="auto")
    start = time.perf_counter()
    oneshot(
        model=model,
        dataset=data,
        recipe=modifier,
        max_seq_length=len(windows[0]),
        num_calibration_samples=len(windows),
        shuffle_calibration_samples=False,
        batch_size=int(batch),
        pipeline="sequential",
    )
    seconds = time.perf_counter() - start
    model.save_pretrained(out, save_compressed=True)
    AutoTokenizer.from_pretrained(model_path).save_pretrained(out)
    print(json.dumps({"quantize_seconds": seconds}))


if __name__ == "__main__":
    main()

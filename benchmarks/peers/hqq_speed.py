"""HQQ by its own library, in its own environment: hqq_speed.py MODEL TOKENS.json. 4 bits, groups of 64."""

from __future__ import annotations

import json
import sys
import time

import torch
from hqq.core.quantize import Quantizer
from transformers import AutoModelForCausalLM


def main() -> None:
    """Quantize every matrix of the blocks; print the CPU seconds as JSON."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
    weights = [part.weight.data for part in model.model.modules() if isinstance(part, torch.nn.Linear)]
    options = {"nbits": 4, "group_size": 64, "optimize": True, "axis": 1, "device": "cpu"}
    Quantizer.quantize(weights[0][:64], **options, compute_dtype=torch.float32)
    began = time.process_time()
    for weight in weights:
        Quantizer.quantize(weight, **options, compute_dtype=torch.float32)
    print(json.dumps({"cpu_seconds": time.process_time() - began}))


if __name__ == "__main__":
    main()

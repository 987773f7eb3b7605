"""int8 weights by torchao, in its own environment: torchao_speed.py MODEL TOKENS.json."""

from __future__ import annotations

import json
import sys
import time

import torch
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import AutoModelForCausalLM


def main() -> None:
    """Quantize the blocks and save the state, as our backend's call does; print the CPU seconds as JSON."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
    quantize_(torch.nn.Sequential(torch.nn.Linear(64, 64)), Int8WeightOnlyConfig())
    began = time.process_time()
    quantize_(model.model, Int8WeightOnlyConfig())
    torch.save(model.state_dict(), "model.pt")
    print(json.dumps({"cpu_seconds": time.process_time() - began}))


if __name__ == "__main__":
    main()

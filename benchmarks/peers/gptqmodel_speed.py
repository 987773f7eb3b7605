"""GPTQ by GPTQModel, in its own environment: gptqmodel_speed.py MODEL TOKENS.json. 4 bits, groups of 64."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its loader asks for two; it offers half the cores
from gptqmodel import GPTQModel, QuantizeConfig


def main() -> None:
    """Quantize and save; print the CPU seconds as JSON."""
    torch.set_num_threads(1)
    windows = json.loads(Path(sys.argv[2]).read_text())
    calibration = [{"input_ids": torch.tensor([w]), "attention_mask": torch.ones(1, len(w)).long()} for w in windows]
    config = QuantizeConfig(bits=4, group_size=64, sym=True, desc_act=True, static_groups=True, damp_percent=0.01,
                            act_group_aware=False)  # fmt: skip
    model = GPTQModel.load(sys.argv[1], config, device="cpu")
    began = time.process_time()
    model.quantize(calibration, batch_size=4)
    model.save("out")
    print(json.dumps({"cpu_seconds": time.process_time() - began}))


if __name__ == "__main__":
    main()

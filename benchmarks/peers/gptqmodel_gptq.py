"""GPTQ by GPTQModel, in its own environment: gptqmodel_gptq.py MODEL TOKENS.json OUT BITS GROUP BATCH."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from gptqmodel import GPTQModel, QuantizeConfig


def main() -> None:
    """Load, quantize, save; print the seconds of the quantize call as the last line of JSON."""
    model_path, tokens_path, out, bits, group, batch = sys.argv[1:]
    torch.set_num_threads(2)
    windows = json.loads(Path(tokens_path).read_text())
    calibration = [{"input_ids": torch.tensor([w]), "attention_mask": torch.ones(1, len(w)).long()} for w in windows]
    config = QuantizeConfig(bits=int(bits), group_size=int(group), sym=True, desc_act=False, damp_percent=0.01)
    model = GPTQModel.load(model_path, config, device="cpu")
    start = time.perf_counter()
    model.quantize(calibration, batch_size=int(batch))
    seconds = time.perf_counter() - start
    model.save(out)
    print(json.dumps({"quantize_seconds": seconds}))


if __name__ == "__main__":
    main()

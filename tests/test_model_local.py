"""Models from their own files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from quantrecipe.catalog import lookup
from quantrecipe.catalog.compile import FOLDER
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import ModelError
from quantrecipe.memory import estimate_memory

DEMO = FOLDER.parent / "demo" / "model"


def write_header(path: Path, shapes: dict[str, list[int]]) -> None:
    header = json.dumps(
        {n: {"dtype": "BF16", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def test_a_folder_agrees_with_the_catalogue() -> None:
    pytest.importorskip("transformers")
    ours, built = lookup.spec("demo"), resolve_model(str(DEMO))
    assert built.parameters == ours.parameters
    assert built.groups == ours.groups
    assert (built.tied, built.kv, built.context) == (ours.tied, ours.kv, ours.context)
    assert estimate_memory(built, "w4a16-g64").file_bytes == estimate_memory(ours, "w4a16-g64").file_bytes


def test_headers_alone(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": [1000, 64], "model.norm.weight": [64]}
    for i in range(3):
        shapes |= {
            f"model.layers.{i}.self_attn.q_proj.weight": [64, 64],
            f"model.layers.{i}.self_attn.k_proj.weight": [32, 64],
            f"model.layers.{i}.self_attn.v_proj.weight": [32, 64],
            f"model.layers.{i}.mlp.up_proj.weight": [256, 64],
        }
    write_header(tmp_path / "model.safetensors", shapes)
    spec = resolve_model(str(tmp_path))
    assert spec.layers == 3 and spec.vocab == 1000 and spec.kv.width == 64
    assert spec.parameters == 64_000 + 64 + 3 * 64 * (64 + 32 + 32 + 256)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"model_type": 3}', '{"model_type": "no-such-architecture"}', "\x00\x01", "[" * 5000]
)
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError) as caught:
        resolve_model(str(tmp_path))
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, struct.pack("<Q", 4) + b"[1,2]", struct.pack("<Q", 9) + b"x"])
def test_safetensors_that_are_damaged(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError):
        resolve_model(str(tmp_path))


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model there"):
        resolve_model(str(tmp_path))


# One config a family, built on the meta device by transformers and compared with the catalogue.
CONFIGS: dict[str, dict[str, object]] = {
    "opt-125m": {"model_type": "opt", "vocab_size": 50272, "hidden_size": 768, "num_hidden_layers": 12,
                 "ffn_dim": 3072, "num_attention_heads": 12, "max_position_embeddings": 2048,
                 "word_embed_proj_dim": 768},
    "bloom-560m": {"model_type": "bloom", "vocab_size": 250880, "hidden_size": 1024, "n_layer": 24, "n_head": 16},
    "llama-3.2-1b": {"model_type": "llama", "vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 16,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
                     "tie_word_embeddings": True, "max_position_embeddings": 131072},
    "qwen2.5-0.5b": {"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "num_hidden_layers": 24,
                     "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
                     "tie_word_embeddings": True},
    "qwen3-0.6b": {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "num_hidden_layers": 28,
                   "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
                   "intermediate_size": 3072, "tie_word_embeddings": True},
    "gemma-2-2b": {"model_type": "gemma2", "vocab_size": 256000, "hidden_size": 2304, "num_hidden_layers": 26,
                   "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "intermediate_size": 9216},
    "gpt2": {"model_type": "gpt2"},
    "gpt-j-6b": {"model_type": "gptj", "vocab_size": 50400, "n_embd": 4096, "n_layer": 28, "n_head": 16,
                 "tie_word_embeddings": False},
    "pythia-70m": {"model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "num_hidden_layers": 6,
                   "num_attention_heads": 8, "intermediate_size": 2048, "tie_word_embeddings": False},
    "phi-2": {"model_type": "phi", "vocab_size": 51200, "hidden_size": 2560, "num_hidden_layers": 32,
              "num_attention_heads": 32, "intermediate_size": 10240, "tie_word_embeddings": False},
    "falcon-7b": {"model_type": "falcon", "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32,
                  "num_attention_heads": 71, "multi_query": True, "parallel_attn": True, "bias": False},
    "mpt-7b": {"model_type": "mpt", "vocab_size": 50432, "d_model": 4096, "n_layers": 32, "n_heads": 32,
               "no_bias": True},
    "mixtral-8x7b": {"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
                     "num_local_experts": 8, "tie_word_embeddings": False},
    "qwen3-30b-a3b": {"model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048,
                      "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
                      "head_dim": 128, "moe_intermediate_size": 768, "num_experts": 128,
                      "num_experts_per_tok": 8, "tie_word_embeddings": False},
    "gpt-oss-20b": {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32,
                    "tie_word_embeddings": False},
    "deepseek-v3": {"model_type": "deepseek_v3", "tie_word_embeddings": False},
    "deepseek-v2-lite": {"model_type": "deepseek_v2", "vocab_size": 102400, "hidden_size": 2048,
                         "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
                         "q_lora_rank": None, "kv_lora_rank": 512, "intermediate_size": 10944,
                         "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2,
                         "first_k_dense_replace": 1, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
                         "v_head_dim": 128, "num_experts_per_tok": 6, "tie_word_embeddings": False},
    "olmo-2-7b": {"model_type": "olmo2", "vocab_size": 100352, "hidden_size": 4096, "num_hidden_layers": 32,
                  "num_attention_heads": 32, "intermediate_size": 11008, "tie_word_embeddings": False},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_dimensions_against_transformers(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    built, ours = resolve_model(str(tmp_path)), lookup.spec(name)
    assert built.parameters == ours.parameters
    assert built.quantizable_parameters == ours.quantizable_parameters
    assert built.kv.width == ours.kv.width and built.tied == ours.tied

"""Small randomly initialised models of many architectures, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_COMMON: dict[str, Any] = {"vocab_size": 160, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_LLAMA_LIKE = _COMMON | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_NEOX_LIKE = {key: value for key, value in _LLAMA_LIKE.items() if key != "num_key_value_heads"}
_GPT2_LIKE = _COMMON | {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128}
_OPT = _COMMON | {
    "hidden_size": 64,
    "ffn_dim": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "word_embed_proj_dim": 64,
}

#: config class name in transformers -> its arguments
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _LLAMA_LIKE),
    "llama-tied": ("LlamaConfig", _LLAMA_LIKE | {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", _LLAMA_LIKE | {"sliding_window": 16}),
    "qwen2": ("Qwen2Config", _LLAMA_LIKE),
    "qwen3": ("Qwen3Config", _LLAMA_LIKE | {"head_dim": 16}),
    "gemma": ("GemmaConfig", _LLAMA_LIKE | {"head_dim": 16}),
    "gemma2": ("Gemma2Config", _LLAMA_LIKE | {"head_dim": 16, "sliding_window": 16}),
    "gemma3": ("Gemma3TextConfig", _LLAMA_LIKE | {"head_dim": 16, "sliding_window": 16}),
    "phi": ("PhiConfig", _LLAMA_LIKE),
    "phi3": ("Phi3Config", _LLAMA_LIKE),
    "opt": ("OPTConfig", _OPT),
    "opt-350m": ("OPTConfig", _OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    "bloom": ("BloomConfig", _COMMON | {"hidden_size": 64, "n_layer": 3, "n_head": 4}),
    "gpt2": ("GPT2Config", _GPT2_LIKE),
    "gpt-neox": ("GPTNeoXConfig", _NEOX_LIKE),
    "falcon": ("FalconConfig", _COMMON | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}),
}


def make_model(family: str, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Save a random model of that family as safetensors and return its folder."""
    import transformers

    name, arguments = FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**arguments)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    model.save_pretrained(folder)
    return folder

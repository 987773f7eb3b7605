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
_FALCON = _COMMON | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
_MOE = {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1}
_MLA = {
    "moe_intermediate_size": 64, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16,
    "v_head_dim": 16, "num_key_value_heads": 4,
}  # fmt: skip

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
    "falcon": ("FalconConfig", _FALCON),
    "falcon-new": ("FalconConfig", _FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "mixtral": ("MixtralConfig", _LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2-moe": ("Qwen2MoeConfig", _LLAMA_LIKE | _MOE | {"shared_expert_intermediate_size": 64}),
    "qwen3-moe": ("Qwen3MoeConfig", _LLAMA_LIKE | _MOE | {"head_dim": 16, "mlp_only_layers": [1]}),
    "olmoe": ("OlmoeConfig", _LLAMA_LIKE | {"num_experts": 4, "num_experts_per_tok": 2}),
    "phimoe": ("PhimoeConfig", _LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek-v2": ("DeepseekV2Config", _LLAMA_LIKE | _MLA | {"topk_method": "greedy"}),
    "deepseek-v3": ("DeepseekV3Config", _LLAMA_LIKE | _MLA | {"n_group": 2, "topk_group": 1}),
    "glm4-moe": (
        "Glm4MoeConfig",
        _LLAMA_LIKE | _MOE | {"n_routed_experts": 4, "first_k_dense_replace": 1, "head_dim": 16},
    ),
    "granitemoe": ("GraniteMoeConfig", _LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt-oss": ("GptOssConfig", _LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}),
}
#: Those with routed experts.
MOE = (
    "mixtral",
    "qwen2-moe",
    "qwen3-moe",
    "olmoe",
    "phimoe",
    "deepseek-v2",
    "deepseek-v3",
    "glm4-moe",
    "granitemoe",
    "gpt-oss",
)


def make_model(family: str, folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Save a random model of that family as safetensors and return its folder."""
    import transformers

    name, arguments = FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**arguments)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:  # what begins as zeros and routes
        if "correction" in name or ("bias" in name and ("experts" in name or "router" in name)):
            torch.nn.init.normal_(tensor, std=0.1)
    model.save_pretrained(folder)
    return folder

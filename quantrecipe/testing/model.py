"""A random Llama of three blocks, small enough to quantize in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 160


def tiny_model(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write model and tokenizer to ``folder``; the same bytes each time.

    Three blocks, hidden size 128, tied embeddings; one input channel in 32 is ten times as large as the others, so
    that methods which look at inputs have something to find.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter[::32].mul_(10)
            elif parameter.dim() == 2:
                parameter.mul_(4)
    model.to(dtype).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = pre_tokenizers.ByteLevel.alphabet()
    words = ["<pad>", "<s>", "</s>", *sorted(letters)[: VOCABULARY - 3]]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]


def text_tokens(sequences: int, length: int, seed: int = 0) -> torch.Tensor:
    """int64 [sequences, length]: ids drawn from a skewed distribution, the first of each row <s>."""
    generator = torch.Generator().manual_seed(seed)
    weights = 1.0 / torch.arange(1, VOCABULARY - 2, dtype=torch.float64)
    drawn = torch.multinomial(weights, sequences * length, replacement=True, generator=generator) + 3
    tokens = drawn.reshape(sequences, length)
    tokens[:, 0] = 1
    return tokens

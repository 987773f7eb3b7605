"""Make a small mixture-of-experts model out of the demo model, for measuring how experts should be calibrated.

    python tools/fetch_texts.py TEXTS
    python tools/upcycle_demo_moe.py --texts TEXTS --out OUT

Sparse upcycling (arXiv:2212.05055): attention, norms and embeddings are the demo model's, every expert begins as a
random half of its feed-forward neurons, the router at random; then all of it is trained on. The result is a Mixtral:
16 experts of 384 neurons, two a token, 22 million parameters.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from train_demo_model import batches, encode, export, learning_rate, split_documents
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from quantrecipe.modeling.skeleton import local_path

EXPERTS, ACTIVE = 16, 2
KEPT = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
        "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings", "bos_token_id",
        "eos_token_id")  # fmt: skip


def upcycle(seed: int) -> MixtralForCausalLM:
    """The demo model with its feed-forward layers made sparse, fp32."""
    torch.manual_seed(seed)
    dense = AutoModelForCausalLM.from_pretrained(local_path("demo"), dtype=torch.float32)
    width = dense.config.intermediate_size // 2
    config = MixtralConfig(
        num_local_experts=EXPERTS, num_experts_per_tok=ACTIVE, intermediate_size=width, pad_token_id=None,
        output_router_logits=True, router_aux_loss_coef=0.01, sliding_window=None,
        **{key: getattr(dense.config, key) for key in KEPT},
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    model.load_state_dict(dense.state_dict(), strict=False)
    for sparse, full in zip(model.model.layers, dense.model.layers, strict=True):
        for index in range(EXPERTS):
            chosen = torch.randperm(dense.config.intermediate_size)[:width]
            both = torch.cat([full.mlp.gate_proj.weight[chosen], full.mlp.up_proj.weight[chosen]])
            sparse.mlp.experts.gate_up_proj.data[index] = both
            sparse.mlp.experts.down_proj.data[index] = full.mlp.down_proj.weight[:, chosen] * 2
    return model


def main() -> None:
    """Train, one line a step, and write OUT as safetensors in bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.warmup_steps, args.decay_steps = 30, args.steps // 2
    tokenizer = AutoTokenizer.from_pretrained(local_path("demo"))
    documents = encode(tokenizer, split_documents(args.texts, 0.04, 0.03, args.seed).train)
    model = upcycle(args.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.01)
    began = time.perf_counter()
    for step, rows in zip(range(args.steps), batches(documents, args, 0), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(json.dumps({"step": step, "loss": loss.item(), "seconds": time.perf_counter() - began}), flush=True)
    model.config.output_router_logits = False
    export(model, tokenizer, args.out)


if __name__ == "__main__":
    main()

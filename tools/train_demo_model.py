"""Train a small causal language model, tokenizer included, from the texts that fetch_texts.py fetched.

    python tools/fetch_texts.py TEXTS
    python tools/train_demo_model.py --texts TEXTS --out OUT

Other sizes of either family at equal training (tools/train_family.py runs them): `--arch opt --hidden 128
--intermediate 512 --tokens-per-parameter 4.8` sets the steps from the parameters outside the embeddings, and the
decay to their last half.

OUT receives `model/` (loadable with transformers), `texts/` (calibration, held-out and other-source text),
`log.jsonl` and `checkpoint.pt`. A killed run goes on with `--resume`, and arrives where an unbroken one would:
the batches depend on the seed and the step alone. The schedule is warm-up, constant, linear decay to zero, so
`--steps` may be raised or lowered on resuming as long as the decay has not begun.

Convention: a document begins with `<s>`, and so does every training window, wherever it was cut; the tokenizer
therefore adds `<s>`, and a window to be evaluated should begin with it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

BOS, EOS = "<s>", "</s>"
SOURCE_SEPARATOR = "\f\n"  # between documents, as fetch_texts.py writes them
DOCUMENT_SEPARATOR = "\n\n\n"  # between documents in the shipped texts; no document contains it
OTHER_SOURCE = "jargon"  # kept out of training and calibration altogether


@dataclass(frozen=True)
class Split:
    """Whole documents, in three disjoint parts of about the same mixture of sources."""

    train: list[str]
    calibration: list[str]
    heldout: list[str]


def read_documents(file: Path) -> list[str]:
    return [document.strip() for document in file.read_text("utf-8").split(SOURCE_SEPARATOR)]


def take(documents: list[str], budget: int) -> tuple[list[str], list[str]]:
    """The first documents that together stay within `budget` bytes, and all the others."""
    taken, rest, used = [], [], 0
    for document in documents:
        size = len(document.encode("utf-8"))
        if used + size <= budget:
            taken.append(document)
            used += size
        else:
            rest.append(document)
    return taken, rest


def split_documents(texts: Path, heldout: float, calibration: float, seed: int) -> Split:
    """Split each source by itself, so that every part mixes the sources alike."""
    split = Split([], [], [])
    for file in sorted(texts.glob("*.txt")):
        if file.stem == OTHER_SOURCE:
            continue
        documents = read_documents(file)
        size = file.stat().st_size
        random.Random(f"{seed} {file.stem}").shuffle(documents)
        held, rest = take(documents, int(size * heldout))
        calibrating, training = take(rest, int(size * calibration))
        split.heldout.extend(held)
        split.calibration.extend(calibrating)
        split.train.extend(training)
    return split


def write_texts(split: Split, texts: Path, out: Path) -> None:
    """Write the parts that are shipped. Of the other source, every third section, to keep the package small."""
    out.mkdir(parents=True, exist_ok=True)
    other = read_documents(texts / f"{OTHER_SOURCE}.txt")[1::3]
    parts = {"calibration": split.calibration, "heldout": split.heldout, OTHER_SOURCE: other}
    for name, documents in parts.items():
        (out / f"{name}.txt").write_text(DOCUMENT_SEPARATOR.join(documents) + "\n", "utf-8")


def train_tokenizer(documents: list[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text round-trips, and there is no unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    begin = (BOS, tokenizer.token_to_id(BOS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS}:1 $B:1", special_tokens=[begin]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=context,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> list[np.ndarray]:
    encodings = tokenizer.backend_tokenizer.encode_batch(documents)  # the tokenizer puts <s> first
    return [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]


def windows(documents: list[np.ndarray], length: int, rng: np.random.Generator) -> np.ndarray:
    """One epoch: documents end to end in a random order, cut into windows that each begin with <s>."""
    order = rng.permutation(len(documents))
    stream = np.concatenate([documents[index] for index in order])
    stream = stream[rng.integers(length) :]  # other cuts in every epoch
    body = stream[: len(stream) // (length - 1) * (length - 1)].reshape(-1, length - 1)
    begin = np.full((len(body), 1), documents[0][0])
    return rng.permutation(np.concatenate([begin, body], axis=1))


def batches(documents: list[np.ndarray], args: argparse.Namespace, start: int) -> Iterator[torch.Tensor]:
    """Batches from step `start` on; those before it are passed over, not replayed."""
    step, epoch = 0, 0
    while True:
        rows = windows(documents, args.sequence_length, np.random.default_rng([args.seed, epoch]))
        for first in range(0, len(rows) - args.batch + 1, args.batch):
            if step >= start:
                yield torch.from_numpy(rows[first : first + args.batch])
            step += 1
        epoch += 1


def build_model(args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    """A freshly initialised model of the architecture asked for, embeddings tied to the head."""
    torch.manual_seed(args.seed)
    shared = {
        "vocab_size": args.vocab,
        "hidden_size": args.hidden,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads,
        "max_position_embeddings": args.sequence_length,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    if args.arch == "llama":
        return LlamaForCausalLM(
            LlamaConfig(intermediate_size=args.intermediate, num_key_value_heads=args.kv_heads, **shared)
        )
    return OPTForCausalLM(
        OPTConfig(
            ffn_dim=args.intermediate, word_embed_proj_dim=args.hidden, dropout=0.0, attention_dropout=0.0, **shared
        )
    )


def matrix_parameters(model: nn.Module) -> int:
    """Parameters of the decoder blocks: what quantizing rounds, and what training tokens are counted against."""
    embeddings = {
        id(weight) for part in model.modules() if isinstance(part, nn.Embedding) for weight in part.parameters()
    }
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in embeddings)


def set_steps(args: argparse.Namespace, parameters: int) -> None:
    """With `--tokens-per-parameter`, the steps that make so many tokens; the last half decays."""
    if args.tokens_per_parameter is not None:
        args.steps = math.ceil(args.tokens_per_parameter * parameters / (args.batch * args.sequence_length))
        args.decay_steps = args.steps // 2


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Warm-up, constant, then linear to zero over the last `decay_steps`."""
    warm = min(1.0, (step + 1) / args.warmup_steps)
    cool = min(1.0, (args.steps - step) / max(1, args.decay_steps))
    return args.lr * warm * cool


def next_token_loss(model: nn.Module, rows: torch.Tensor, amp: bool) -> torch.Tensor:
    with torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=amp):
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def export(model: nn.Module, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write a bfloat16 copy that transformers loads; training goes on in float32."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    with torch.device("meta"):
        copy = type(model)(model.config)
    copy.load_state_dict(state, assign=True)
    copy.tie_weights()
    copy.config.dtype = torch.bfloat16
    copy.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    )
    copy.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for file in out.iterdir():
        file.chmod(0o644)  # safetensors creates its file for the owner alone


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Through a temporary file, so that a kill while writing leaves the checkpoint before it."""
    partial = file.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(file)


@dataclass
class Progress:
    """What has been done so far, over all the runs that resumed one another."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def log(out: Path, **entry: float) -> None:
    line = json.dumps({key: round(value, 5) for key, value in entry.items()})
    print(line, flush=True)
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def train(
    model: nn.Module, tokenizer: PreTrainedTokenizerFast, documents: list[np.ndarray], args: argparse.Namespace
) -> None:
    """The training loop, with a checkpoint and an export every `checkpoint_minutes`."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, args.beta2), weight_decay=args.weight_decay, fused=True
    )
    progress, checkpoint = Progress(), args.out / "checkpoint.pt"
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])

    def save() -> None:
        contents = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}
        save_checkpoint(checkpoint, contents)
        export(model, tokenizer, args.out / "model")

    model.train()
    step_loss = torch.compile(next_token_loss) if args.compile else next_token_loss
    saved = logged = time.monotonic()
    losses: list[float] = []
    source = batches(documents, args, progress.step)
    while progress.step < args.steps:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress.step, args)
        rows = next(source).to(args.device)
        loss = step_loss(model, rows, args.amp)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        progress.step += 1
        progress.tokens += rows.numel()
        if len(losses) == args.log_every or progress.step == args.steps:
            now = time.monotonic()
            progress.seconds += now - logged
            rate = len(losses) * rows.numel() / (now - logged)
            mean = sum(losses) / len(losses)
            log(args.out, step=progress.step, tokens=progress.tokens, loss=mean, perplexity=math.exp(mean),
                lr=optimizer.param_groups[0]["lr"], tokens_per_second=rate, seconds=progress.seconds)  # fmt: skip
            losses, logged = [], now
        if time.monotonic() - saved > 60 * args.checkpoint_minutes:
            save()
            saved = time.monotonic()
    save()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True, help="folder that fetch_texts.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arch", choices=("llama", "opt"), default="llama")
    for name, default in (("hidden", 256), ("layers", 4), ("intermediate", 768), ("heads", 4), ("kv-heads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--sequence-length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--decay-steps", type=int, default=7_500)
    parser.add_argument("--tokens-per-parameter", type=float, help="instead of --steps and --decay-steps")
    parser.add_argument("--warmup-steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=2, help="windows in a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--beta2", type=float, default=0.99, help="small batches want a long memory")
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--heldout-fraction", type=float, default=0.04)
    parser.add_argument("--calibration-fraction", type=float, default=0.03)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="fuse the step; pays for itself in long runs")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--checkpoint-minutes", type=float, default=2.0)
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    split = split_documents(args.texts, args.heldout_fraction, args.calibration_fraction, args.seed)
    write_texts(split, args.texts, args.out / "texts")
    tokenizer = train_tokenizer(split.train, args.vocab, args.sequence_length)
    documents = encode(tokenizer, split.train)
    model = build_model(args, tokenizer).to(args.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    matrices = matrix_parameters(model)
    set_steps(args, matrices)
    tokens = sum(map(len, documents))
    print(f"{parameters} parameters ({matrices} in blocks), {args.steps} steps, {len(documents)} documents, "
          f"{tokens} training tokens", flush=True)  # fmt: skip
    counts = np.bincount(np.concatenate(documents), minlength=args.vocab)
    np.savetxt(args.out / "token_counts.txt", counts, fmt="%d")  # for the unigram baseline
    train(model, tokenizer, documents, args)


if __name__ == "__main__":
    main()

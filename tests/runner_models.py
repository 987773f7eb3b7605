"""A small random model with a tokenizer and texts, and recipes for it, for the runner's tests."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from quantrecipe.recipe import Recipe
from quantrecipe.runner.cli import main
from tests.families import make_model

WORDS = ("the sea was calm and every sailor slept below while one man kept the watch alone").split()  # noqa: SIM905


def text(words: int, seed: int = 0) -> str:
    """Words at random, the same for the same seed."""
    chooser = random.Random(seed)
    return " ".join(chooser.choice(WORDS) for _ in range(words))


def add_tokenizer(folder: Path) -> None:
    """A BPE tokenizer of 160 tokens with <s> as BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([text(500)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(folder)


def make_workplace(root: Path, family: str = "llama-tied", dtype: torch.dtype = torch.float32) -> Path:
    """``root`` with model/, calibration.txt and heldout.txt."""
    folder = make_model(family, root / "model", dtype)
    add_tokenizer(folder)
    (root / "calibration.txt").write_text(text(3000, 1), encoding="utf-8")
    (root / "heldout.txt").write_text(text(3000, 2), encoding="utf-8")
    return root


def recipe_data(root: Path, scheme: str = "w4a16-g32", method: str = "rtn", **changes: Any) -> dict[str, Any]:
    """A recipe for the workplace, as YAML would give it."""
    return {
        "version": 1,
        "model": {"id": str(root / "model")},
        "quantization": {"config_groups": {"main": {"scheme": scheme, "method": method}}},
        "calibration": {"dataset": str(root / "calibration.txt"), "samples": 8, "sequence_length": 32},
        "evaluation": {"perplexity": {"dataset": str(root / "heldout.txt"), "sequence_length": 32, "windows": 50}},
        "output": {"path": str(root / "out")},
    } | changes


def recipe(root: Path, **more: Any) -> Recipe:
    """The same, checked."""
    return Recipe.model_validate(recipe_data(root, **more))


def write_recipe(root: Path, data: dict[str, Any] | None = None) -> Path:
    """recipe.yaml in the workplace."""
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(data or recipe_data(root)), encoding="utf-8")
    return path


def timeless(results: Mapping[str, Any]) -> dict[str, Any]:
    """results.json without what was measured of time and memory; the names of the stages stay."""
    layers = [{**row, "seconds": 0} for row in results["layers"]]
    verified = {**results["verified"], "seconds": 0, "peak_memory": 0}
    stages = [row["name"] for row in results["stages"]]
    return {**results, "created": "", "layers": layers, "verified": verified, "stages": stages}


def qrun(*words: object) -> int:
    """The exit code of the command, run in this process."""
    try:
        main([str(word) for word in words])
    except SystemExit as done:
        return int(done.code or 0)
    raise AssertionError("main returns only by SystemExit")

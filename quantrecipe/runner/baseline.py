"""An accepted result to be no worse than: per-window losses of a results.json, paired by the windows' tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from quantrecipe.errors import QuantRecipeError
from quantrecipe.runner.finish import RESULTS
from quantrecipe.runner.losses import WindowScores
from quantrecipe.runner.results_schema import Results
from quantrecipe.runner.tokens import Windows
from quantrecipe.safe_json import read_json

SCHEMA = 1
DIGITS = 7


def window_rows(given: Windows, scores: WindowScores) -> dict[str, Any]:
    """What results.json keeps of each window, in the order of the text; nats a token."""
    return {
        "index": list(given.index),
        "tokens_sha256": window_digests(given.tokens),
        "original": rounded(scores.original),
        "quantized": rounded(scores.quantized),
        "kl": None if scores.kl is None else rounded(scores.kl),
        "agreement": None if scores.agreement is None else rounded(scores.agreement),
    }


def rounded(values: torch.Tensor) -> list[float]:
    """Seven significant digits, as many as fp32 has."""
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]


def window_digests(tokens: torch.Tensor) -> list[str]:
    """The first 16 hexadecimal digits of each window's sha256: what says that two were measured over the same."""
    return [hashlib.sha256(row.contiguous().numpy().tobytes()).hexdigest()[:16] for row in tokens]


@dataclass(frozen=True, slots=True)
class StoredBaseline:
    """The accepted losses by window; results: the whole results.json."""

    losses: Mapping[str, float]
    results: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> StoredBaseline:
        """Of a results.json, or of a folder that holds one. Raises QuantRecipeError."""
        results = read_results(path / RESULTS if path.is_dir() else path)
        rows = results["windows"]
        if rows is None:
            raise QuantRecipeError(
                "the baseline holds no losses of windows", value=str(path), remedy="measure it with a perplexity set"
            )
        return cls(dict(zip(rows["tokens_sha256"], rows["quantized"], strict=True)), results)

    def differences(self, given: Windows, scores: WindowScores) -> list[float] | None:
        """Loss of each window minus the accepted one's; None where fewer than two windows are the same."""
        pairs = zip(window_digests(given.tokens), scores.quantized.tolist(), strict=True)
        found = [loss - self.losses[digest] for digest, loss in pairs if digest in self.losses]
        return found if len(found) >= 2 else None


def read_results(path: Path) -> dict[str, Any]:
    """A results.json of this version, checked against its schema. Raises QuantRecipeError."""
    if not path.is_file():
        raise QuantRecipeError("no such results", value=str(path), remedy="give a results.json or a folder with one")
    found = read_json(path, QuantRecipeError)
    if found.get("schema") != SCHEMA:
        limit = f"this version reads schema {SCHEMA}"
        raise QuantRecipeError("not a results.json", value=str(path), limit=limit, remedy="run or gate it again")
    try:
        Results.model_validate(found)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise QuantRecipeError(
            "not a results.json", value=str(path), limit=f"{where}: {fault['msg']}"[:160]
        ) from error
    return found

"""The quantized side whole in memory, for tasks, texts and timing: in the memory of its codes where that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quantrecipe.runner.scorers import TOKENS_A_BATCH, Loaded, Scorer, Streamed

if TYPE_CHECKING:
    from quantrecipe.runtime.load import Loaded as InCodes

_ALL: dict[str, Any] = {"what": "losses", "layers": None, "scheme": None, "shape": None, "kernels": []}
#: How losses are computed, and why so.
STREAMED = _ALL | {
    "path": "one block in memory at a time, its layers as codes",
    "why": f"unpacked once for about {TOKENS_A_BATCH} tokens a batch, they take as long as a block of plain weights",
}
LOADED = _ALL | {"path": "as its backend loads it", "why": "no reader here for this format"}


class Served:
    """Loads the checkpoint when it is first asked for, once. load: gives a model, or what ``runtime.load`` does."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._found: Any = None

    def __call__(self) -> Any:
        """The model."""
        if self._found is None:
            self._found = self._load()
        codes = self._codes()
        return self._found if codes is None else codes.model

    def _codes(self) -> InCodes | None:
        """What was loaded, where its layers keep their codes."""
        from quantrecipe.runtime.load import Loaded as InCodes  # late: it compiles loops

        return self._found if isinstance(self._found, InCodes) else None

    def scorer(self, streamed: Scorer) -> Scorer:
        """It as a scorer, where it has codes; else ``streamed``."""
        model = self()
        if self._codes() is None:
            return streamed
        return Loaded(model, streamed.vocabulary, streamed.dtype, str(getattr(streamed, "device", "cpu")))

    def rows(self, quantized: Scorer) -> list[dict[str, Any]]:
        """How the quantized side was computed, and why, as results.json holds it; layers None = all."""
        from quantrecipe.runtime.coded import paths_of

        codes = self._codes()
        whole = [] if codes is None else codes.to_json()
        losses = paths_of(quantized.skeleton) if isinstance(quantized, Streamed) else []
        rows = [STREAMED if isinstance(quantized, Streamed) else LOADED]
        if whole == losses:
            return [*rows, *({"what": "losses, tasks, texts, speed", **row} for row in losses)]
        rows += [{"what": "losses", **row} for row in losses]
        return rows + [{"what": "tasks, texts, speed", **row} for row in whole]

    def close(self) -> None:
        """Give the memory back."""
        self._found = None

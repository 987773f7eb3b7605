"""The quantized side whole in memory, for tasks, texts and timing: in the memory of its codes where that can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quantrecipe.runner.scorers import TOKENS_A_BATCH, Loaded, Scorer, Streamed

if TYPE_CHECKING:
    from quantrecipe.runtime.load import Loaded as InCodes

#: How losses are computed, and why so.
STREAMED = {
    "what": "losses",
    "path": "dequantized, one block at a time",
    "why": f"about {TOKENS_A_BATCH} tokens a batch: a block is unpacked once for all windows, no other is in memory",
}
LOADED = {"what": "losses", "path": "as its backend loads it", "why": "no reader here for this format"}


class Served:
    """Loads the checkpoint when it is first asked for, once.

    load: gives a model, or what ``runtime.load`` does. texts: whether it computes all that the streamed model does;
    where a KV cache is rounded it does not, and is only timed.
    """

    def __init__(self, load: Callable[[], Any], texts: bool = True) -> None:
        self._load, self._texts = load, texts
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
        """It as a scorer, where it has codes and computes all that ``streamed`` does; else ``streamed``."""
        if not self._texts:
            return streamed
        model = self()
        if self._codes() is None:
            return streamed
        return Loaded(model, streamed.vocabulary, streamed.dtype, str(getattr(streamed, "device", "cpu")))

    def rows(self, quantized: Scorer) -> list[dict[str, Any]]:
        """How the quantized side was computed, and why, as results.json holds it; layers None = all."""
        found = [(STREAMED if isinstance(quantized, Streamed) else LOADED) | {"layers": None}]
        codes = self._codes()
        if codes is not None:
            what = "tasks, texts, speed" if self._texts else "speed"
            found += [{"what": what, **row} for row in codes.to_json()]
        return found

    def close(self) -> None:
        """Give the memory back."""
        self._found = None

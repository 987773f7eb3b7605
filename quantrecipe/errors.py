"""The one family of errors that a user sees: what is wrong, the value, the limit, the remedy."""

from __future__ import annotations

from collections.abc import Iterable


class QuantRecipeError(Exception):
    """The input is wrong, or the work could not be carried out. ``str()`` is one line; exit code 2.

    what: the fault, as a clause without a full stop.
    value: what was found; quoted in the message.
    limit: what would have been allowed.
    remedy: what the user can do next.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, value: object = None, limit: str | None = None, remedy: str | None = None
    ) -> None:
        self.what, self.value, self.limit, self.remedy = what, value, limit, remedy
        super().__init__(self.line())

    def line(self) -> str:
        """The message as one line."""
        text = self.what if self.value is None else f"{self.what}: {self.value!r}"
        parts = [text, *(part for part in (self.limit, self.remedy) if part)]
        return "; ".join(" ".join(part.split()) for part in parts)


class RecipeError(QuantRecipeError):
    """A recipe file that cannot be read, or says what makes no sense."""


class ModelError(QuantRecipeError):
    """A model that is unknown, incomplete, damaged or not supported."""


class BackendError(QuantRecipeError):
    """A backend that is missing or cannot carry the recipe out."""


class OutputError(QuantRecipeError):
    """An output folder that cannot be written, or would be overwritten."""


class DamageError(QuantRecipeError):
    """A checkpoint that reads back as something else than was written; exit code 1."""

    exit_code = 1


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known words most like ``word``, best first; case does not count."""
    from difflib import get_close_matches  # late: only errors need it

    by_lower = {name.lower(): name for name in known}
    return [by_lower[hit] for hit in get_close_matches(word.lower(), list(by_lower), n=count, cutoff=0.5)]


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A remedy naming the nearest known words, or None where nothing is near."""
    hits = nearest(word, known)
    return f"did you mean {' or '.join(repr(hit) for hit in hits)}?" if hits else None

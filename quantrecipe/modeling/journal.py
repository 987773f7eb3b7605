"""What a run has done, kept so that a killed one goes on: an append-only file of checksummed lines.

A line is a JSON object with sorted keys, a tab, and the first 16 hex digits of sha256 over the line before's digest
and this line's JSON: a chain, so that whatever follows a damaged line counts for nothing. A line is flushed
to the disk before the run goes on, and what it tells of was flushed before it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from quantrecipe.errors import ModelError
from quantrecipe.modeling.files import explained, fsync, write_all
from quantrecipe.safe_json import parse_json

FILE = "journal"
#: Longest line that is read back, in bytes: a block of 1000 experts is about 2 MB.
MAX_LINE = 64 * 2**20


class Journal:
    """The lines of one scratch folder; opened for reading and appending."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.lines, self._digest, end = _read(self.path)
        with explained(self.path):
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.ftruncate(self._handle, end)
            os.lseek(self._handle, end, os.SEEK_SET)
        fsync(folder)

    def add(self, kind: str, **entries: Any) -> None:
        """Append a line and flush it."""
        text = json.dumps({"kind": kind, **entries}, sort_keys=True, separators=(",", ":"))
        self._digest = _digest(self._digest, text)
        with explained(self.path):
            write_all(self._handle, f"{text}\t{self._digest}\n".encode())
            os.fsync(self._handle)
        self.lines.append(json.loads(text))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All lines of a kind, in order."""
        return [line for line in self.lines if line["kind"] == kind]

    def last(self, kind: str) -> dict[str, Any] | None:
        """The latest line of a kind."""
        found = self.of(kind)
        return found[-1] if found else None

    def close(self) -> None:
        """Let the file go."""
        os.close(self._handle)


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The good lines of a folder's journal; changes nothing."""
    return _read(folder / FILE)[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], str, int]:
    """The good lines, the digest of the last of them, and where it ends."""
    lines: list[dict[str, Any]] = []
    digest, end = "", 0
    if not path.exists():
        return lines, digest, end
    with explained(path), path.open("rb") as file:
        while raw := file.readline(MAX_LINE):
            text, tab, given = raw.decode("utf-8", errors="replace").rpartition("\t")
            expected = _digest(digest, text)
            line = _entry(text, str(path)) if tab and given == f"{expected}\n" else None
            if line is None:
                break
            lines.append(line)
            digest, end = expected, end + len(raw)
    return lines, digest, end


def _entry(text: str, name: str) -> dict[str, Any] | None:
    """The object of one line; None where it is none of ours, checksum or not."""
    try:
        found = parse_json(text.encode("utf-8"), name)
    except ModelError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("kind"), str) else None


def _digest(before: str, text: str) -> str:
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()[:16]

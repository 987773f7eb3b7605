"""Keeps compiled code from writing to standard output, where an answer in JSON may go."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def quiet() -> Iterator[None]:
    """Within, file descriptor 1 leads nowhere; what C has buffered goes where it was written for.

    HiGHS prints lines of its own with scipy 1.17.1 (transformNewIntegerFeasibleSolution), whatever its options say.
    """
    sys.stdout.flush()
    _flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed: there is nothing to keep clean
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, 1)
        os.close(kept)


def _flush() -> None:
    """C's own buffers."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)

"""Freed memory given back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Have glibc return what is free in its heaps (malloc_trim(3)); elsewhere nothing.

    Blocks below some 32 MB are kept for reuse, scattered: without this the resident memory creeps up block by block.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

"""Rows of ``runtime`` in results.json, gathered for people: which path layers take, which kernel multiplies, why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class PathLine(NamedTuple):
    """Layers of one path, of any shape; layers None = all."""

    what: str
    layers: int | None
    path: str
    why: str


class KernelLine(NamedTuple):
    """Layers of one scheme and shape. kernels: what multiplies, for each of ``counts``."""

    layers: int
    scheme: str
    shape: str
    kernels: list[str]


def path_lines(rows: Sequence[dict[str, Any]]) -> list[PathLine]:
    """A line a path and reason, in the rows' order."""
    found: dict[tuple[str, str, str], int | None] = {}
    for row in rows:
        key = row.get("what", ""), row["path"], row["why"]
        found[key] = None if row["layers"] is None else (found.get(key) or 0) + row["layers"]
    return [PathLine(what, layers, path, why) for (what, path, why), layers in found.items()]


def counts(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The rows of inputs that kernels were explained for."""
    return sorted({step["rows"] for row in rows for step in row.get("kernels", ())})


def kernel_lines(rows: Sequence[dict[str, Any]]) -> list[KernelLine]:
    """A line a scheme and shape, though it served losses and texts."""
    found: dict[tuple[Any, ...], KernelLine] = {}
    for row in rows:
        if row.get("kernels"):
            names, (n, k) = [step["kernel"] for step in row["kernels"]], row["shape"]
            line = KernelLine(row["layers"], row["scheme"], f"{n} x {k}", names)
            found.setdefault((row["path"], row["why"], *line[:3], *names), line)
    return list(found.values())


def reasons(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(kernel, rows of inputs, why), each once."""
    found: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        for step in row.get("kernels", ()):
            seen = found.setdefault((step["kernel"], step["why"]), [])
            seen += [step["rows"]] if step["rows"] not in seen else []
    return [(kernel, ", ".join(map(str, sorted(m))), why) for (kernel, why), m in found.items()]

"""CUDA kernels compiled by NVRTC through cuda.core, for any device and without one, and kept on disk.

An entry of the cache is named by the sha256 of all that it depends on: the whole source, macros, device, NVRTC's
version. It is written to a file of its own and renamed, so processes may share the folder; one that does not match
its own hash is compiled again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import Variant
from quantrecipe.kernels.report import Report, read_report
from quantrecipe.kernels.source import whole_text
from quantrecipe.user_cache import cache_folder

INSTALL = "pip install 'quantrecipe[cuda]' (or [cuda12] beside a torch of CUDA 12)"


@dataclass(frozen=True, slots=True)
class Compiled:
    """cubin: what the driver loads. cached: it was on disk."""

    cubin: bytes
    report: Report
    cached: bool


def compile_variant(variant: Variant, sm: int) -> Compiled:
    """The kernel for compute capability ``sm`` (80 for 8.0), from the cache where it is there.

    Raises BackendError where the compiler is missing, of the wrong CUDA, or refuses the source.
    """
    if sm < variant.kernel.least_sm:
        limit = f"sm_{variant.kernel.least_sm} or newer"
        raise BackendError(f"{variant.kernel.name} does not run on this device", value=f"sm_{sm}", limit=limit)
    kept = cached(variant, sm)
    if kept is not None:
        return kept
    made = _compile(variant, sm)
    entry = entry_of(variant, sm)
    if entry is not None:
        _keep(entry, made)
    return made


def cached(variant: Variant, sm: int) -> Compiled | None:
    """What is on disk, if it is whole."""
    entry = entry_of(variant, sm)
    return None if entry is None else _read(entry)


def entry_of(variant: Variant, sm: int) -> Path | None:
    """The cubin's place; its report lies beside it as JSON. None where nothing is kept."""
    base = cache_folder()
    if base is None:
        return None
    parts = [whole_text(variant.source), *map("=".join, variant.macros), str(sm), str(nvrtc_version())]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return base / "kernels" / f"{variant.kernel.name}-sm_{sm}-{digest[:32]}.cubin"


@lru_cache(maxsize=1)
def nvrtc_version() -> tuple[int, int]:
    """(major, minor). Raises BackendError where there is none, or torch has another major."""
    try:
        import cuda.core  # noqa: F401
        from cuda.bindings import nvrtc

        fault, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:  # RuntimeError: the shared library is missing
        raise BackendError("CUDA kernels need NVRTC and cuda.core", remedy=INSTALL) from error
    wanted = torch_cuda_major()
    if int(fault) or (wanted is not None and wanted != major):
        limit = f"torch is of CUDA {wanted}, whose drivers may not load it"
        raise BackendError("NVRTC is of another CUDA", value=f"{major}.{minor}", limit=limit, remedy=INSTALL)
    return int(major), int(minor)


def torch_cuda_major() -> int | None:
    """The CUDA that torch was built for; None = without."""
    import torch

    return int(torch.version.cuda.split(".")[0]) if torch.version.cuda else None


def _compile(variant: Variant, sm: int) -> Compiled:
    from cuda.core import Program, ProgramOptions

    nvrtc_version()
    options = ProgramOptions(
        name=variant.kernel.file,
        arch=f"sm_{sm}",
        std="c++17",
        define_macro=list(variant.macros) or None,
        ptxas_options=["-v", "-warn-spills", "-warn-lmem-usage"],
    )
    log = io.StringIO()
    try:
        made = Program(whole_text(variant.source), "c++", options).compile("cubin", logs=log)
    except Exception as error:  # cuda.core has its own errors for each layer
        found = next(
            (line for line in str(error).splitlines() if "error" in line and "compilation log" not in line), ""
        )
        raise BackendError(f"{variant.label} does not compile for sm_{sm}", limit=found or str(error)) from error
    return Compiled(bytes(made.code), read_report(log.getvalue(), variant.kernel.name), cached=False)


def _read(entry: Path) -> Compiled | None:
    try:
        cubin, kept = entry.read_bytes(), json.loads(entry.with_suffix(".json").read_text())
        if kept["sha256"] != hashlib.sha256(cubin).hexdigest():
            return None
        return Compiled(cubin, Report.of(kept["report"]), cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(entry: Path, made: Compiled) -> None:
    """Report first: an entry counts only where both are there. A folder that cannot be written is no error."""
    kept = {"sha256": hashlib.sha256(made.cubin).hexdigest(), "report": made.report.as_dict()}
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _write(entry.with_suffix(".json"), json.dumps(kept, sort_keys=True).encode())
        _write(entry, made.cubin)
    except OSError:
        return


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(name).replace(path)

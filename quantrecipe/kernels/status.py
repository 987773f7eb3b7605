"""What became of each kernel on a device: compiled, cached, not built, or unsupported and why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from quantrecipe.errors import BackendError, QuantRecipeError, did_you_mean
from quantrecipe.kernels.catalog import KERNELS, Variant
from quantrecipe.kernels.compile import Compiled, cached, compile_variant, nvrtc_version
from quantrecipe.kernels.report import Report

DEFAULT_SM = 90  # what is shown where there is no GPU


@dataclass(frozen=True, slots=True)
class Status:
    """state: compiled (just now), cached, not built, unsupported. why: for unsupported. report: where it is known."""

    variant: Variant
    sm: int
    state: str
    why: str | None = None
    report: Report | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kernel = self.variant.kernel
        return {
            "kernel": kernel.name,
            "does": kernel.does,
            "macros": dict(self.variant.macros),
            "source": kernel.file,
            "arch": f"sm_{self.sm}",
            "status": self.state,
            "why": self.why,
            "threads": kernel.threads,
            "registers": self.report and self.report.registers,
            "spilled_bytes": self.report and self.report.spilled,
            "static_shared_bytes": self.report and self.report.shared,
            "dynamic_shared_bytes": kernel.shared,
            "warnings": list(self.report.warnings) if self.report else [],
        }


def statuses(sm: int, names: Sequence[str] = ()) -> list[Status]:
    """How every variant stands for capability ``sm``; compiles nothing."""
    return [_standing(variant, sm) for variant in _variants(names)]


def build(sms: Iterable[int], names: Sequence[str] = ()) -> Iterator[Status]:
    """Compile what is not cached, as many at once as there are processors; each as it is done, in order."""
    nvrtc_version()
    wanted = [(variant, sm) for sm in sms for variant in _variants(names)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield from pool.map(lambda pair: _built(*pair), wanted)


def parse_sm(text: str) -> int:
    """``sm_90`` -> 90. Raises QuantRecipeError."""
    found = re.fullmatch(r"sm_(\d{2,3})", text)
    if not found:
        raise QuantRecipeError("no architecture", value=text, limit="such as sm_80, sm_89, sm_90")
    return int(found[1])


def device_sm() -> int | None:
    """Of the GPU that torch would use; None = there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return major * 10 + minor


def _variants(names: Sequence[str]) -> list[Variant]:
    known = {kernel.name: kernel for kernel in KERNELS}
    for name in names:
        if name not in known:
            raise QuantRecipeError("no such kernel", value=name, remedy=did_you_mean(name, known))
    return [variant for kernel in KERNELS if not names or kernel.name in names for variant in kernel.variants()]


def _standing(variant: Variant, sm: int) -> Status:
    if sm < variant.kernel.least_sm:
        return Status(variant, sm, "unsupported", f"needs sm_{variant.kernel.least_sm} or newer")
    try:
        kept = cached(variant, sm)
    except BackendError as error:  # no compiler
        return Status(variant, sm, "unsupported", str(error))
    return Status(variant, sm, "not built") if kept is None else _with_report(variant, sm, kept)


def _built(variant: Variant, sm: int) -> Status:
    try:
        return _with_report(variant, sm, compile_variant(variant, sm))
    except BackendError as error:
        return Status(variant, sm, "unsupported", str(error))


def _with_report(variant: Variant, sm: int, made: Compiled) -> Status:
    return Status(variant, sm, "cached" if made.cached else "compiled", report=made.report)

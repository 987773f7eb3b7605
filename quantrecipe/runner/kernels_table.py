"""The text of ``qrun kernels``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby

from quantrecipe.kernels.report import Report
from quantrecipe.kernels.status import Status


def as_text(found: Sequence[Status], variants: bool = False) -> str:
    """A paragraph for each kernel and architecture."""
    lines = []
    for (name, sm), group in groupby(found, key=lambda one: (one.variant.kernel.name, one.sm)):
        ones = list(group)
        states = Counter(one.state for one in ones)
        lines.append(f"{name}  sm_{sm}  " + ", ".join(f"{count} {state}" for state, count in states.items()))
        lines.append(f"  {ones[0].variant.kernel.does}")
        lines += [f"  {_resources(ones)}"] if any(one.report for one in ones) else []
        lines += [f"  {why}" for why in dict.fromkeys(one.why for one in ones) if why]
        lines += [f"    {_variant_line(one)}" for one in ones] if variants else []
    return "\n".join(lines)


def _resources(ones: Sequence[Status]) -> str:
    """Registers and shared memory, from the least to the greatest."""
    reports = [one.report for one in ones if one.report]
    kernel = ones[0].variant.kernel
    registers = _range(reports, lambda report: report.registers)
    shared = _range(reports, lambda report: report.shared + kernel.shared)
    spilled = max(report.spilled for report in reports)
    return (
        f"{registers} registers, {shared} bytes of shared memory, {spilled} bytes spilled, {kernel.threads} threads"
    )


def _range(reports: Sequence[Report], of: Callable[[Report], int]) -> str:
    least, most = min(map(of, reports)), max(map(of, reports))
    return str(least) if least == most else f"{least}-{most}"


def _variant_line(one: Status) -> str:
    macros = " ".join(f"{name}={value}" for name, value in one.variant.macros) or "(one variant)"
    return f"{macros}: {one.state}" + (f", {one.report.registers} registers" if one.report else "")

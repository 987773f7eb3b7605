"""The rows of benchmarks/mixed.py."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mixed_cases import Case
from native import quantize

from quantrecipe.mixed.mix import Measured, MixMeter
from quantrecipe.mixed.options import Option, parse_option
from quantrecipe.mixed.refine import choose_within, refine
from quantrecipe.plugins.isolated.environment import environments
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.texts import read_text

#: auto-round's side, and characters a text that it is given.
PEER, PIECE = Path(__file__).parent / "peers" / "autoround_autoscheme.py", 4000


@dataclass(frozen=True, slots=True)
class Choosing:
    """A meter that shows only the windows to choose by."""

    meter: MixMeter
    windows: int

    @property
    def home(self) -> Path:
        """The meter's."""
        return self.meter.home

    def measure(self, chosen: Mapping[str, Option]) -> Measured:
        """What the choice may look at."""
        return part(self.meter.measure(chosen), slice(0, self.windows))


def part(found: Measured, which: slice) -> Measured:
    """Some of the windows."""
    return replace(found, kl=found.kl[which], losses=found.losses[which], original=found.original[which])


def against_uniform(case: Case, scheme: str) -> dict[str, Any]:
    """The refined mix within the bytes of a uniform recipe, beside that and beside the mix as first chosen."""
    choosing = case.amounts.choosing
    flat = case.uniform(scheme)
    uniform = case.meter.measure(flat)
    losses = case.measured().losses()
    space = case.space(losses)
    room = uniform.file_bytes - case.sizes.rest_bytes(True)
    start = choose_within(space, room)
    meter: Any = Choosing(case.meter, choosing)
    found = refine(space, room, start, meter, case.order(), case.amounts.rounds, Quiet())
    table = slice(choosing, None)
    seen = {"uniform": flat, "first": start, "mixed": dict(found.best.mix)}
    rows = {name: asdict(part(case.meter.measure(mix), table)) for name, mix in seen.items()}
    return {
        "rows": rows,
        "trials": [{"name": one.name, "predicted": one.predicted, "measured": one.kl} for one in found.trials],
        "schemes": dict(Counter(one.scheme for one in found.best.mix.values())),
        "chosen": {name: str(one) for name, one in found.best.mix.items()},
    }


def timed(case: Case) -> dict[str, Any]:
    """One GPTQ pass and measuring at two efforts, each from nothing: seconds and CPU seconds."""
    calibration = case.texts[0]
    out = case.out / "timed"
    found: dict[str, Any] = {"sequences": list(calibration.shape), "options": len(next(iter(case.options.values())))}
    works: dict[str, Callable[[], Any]] = {
        "gptq": lambda: quantize(
            str(case.folder), calibration, out / "gptq", {"main": {"scheme": "w4a16-g64", "method": "gptq"}}
        ),
        "low": lambda: case.measured("low", "timed"),
        "default": lambda: case.measured("default", "timed"),
    }
    shutil.rmtree(out, ignore_errors=True)
    quantize(str(case.folder), calibration[:2], out / "warm", {"main": {"scheme": "w4a16-g64", "method": "gptq"}})
    for name, work in works.items():
        began, cpu = time.perf_counter(), time.process_time()
        work()
        found[name] = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    shutil.rmtree(out, ignore_errors=True)
    return found


#: The small case: units that may take any of these, all others at the first.
FREE, TRIED = 4, ("w4a16-g128", "w2a16-g64", "w3a16-g64", "w6a16")


def exhaustive(case: Case) -> dict[str, Any]:
    """All mixes of a few units within a budget, each measured, against the one that the measuring chooses."""
    options = [parse_option(name) for name in TRIED]
    free = [unit.name for unit in case.units if ".mlp." in unit.name][:: max(len(case.units) // 2 // FREE, 1)][:FREE]
    fixed = {unit.name: options[0] for unit in case.units}
    whole = case.space(case.measured().losses())
    space = replace(whole, options={name: tuple(options) if name in free else (options[0],) for name in fixed})
    room = space.bytes({**fixed, **dict.fromkeys(free, parse_option("w3a16-g64"))})
    mixes = [{**fixed, **dict(zip(free, picks, strict=True))} for picks in itertools.product(options, repeat=FREE)]
    fitting = [mix for mix in mixes if space.bytes(mix) <= room]
    full = [mix for mix in fitting if not any(_grows(space, mix, other) for other in fitting)]
    meter: Any = Choosing(case.meter, case.amounts.choosing)
    start = choose_within(space, room)
    found = refine(space, room, start, meter, case.order(), case.amounts.rounds, Quiet())
    table = slice(case.amounts.choosing, None)
    kl = [part(case.meter.measure(mix), table).mean_kl for mix in full]
    return {
        "units": free, "options": list(TRIED), "mixes": len(mixes), "fitting": len(fitting), "measured": len(full),
        "best": min(kl), "first": part(case.meter.measure(start), table).mean_kl,
        "mixed": part(case.meter.measure(found.best.mix), table).mean_kl, "worst": max(kl),
    }  # fmt: skip


def _grows(space: Any, mix: Mapping[str, Option], other: Mapping[str, Option]) -> bool:
    """Whether the other has more bytes in some units and fewer in none."""
    pairs = [(space.sizes[name, str(one)], space.sizes[name, str(other[name])]) for name, one in mix.items()]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def autoround(case: Case, bits: float) -> dict[str, Any]:
    """What AutoScheme chooses at these average bits, carried out by our GPTQ, and a mix of ours in as many bytes."""
    told = autoscheme(case, bits)
    if "failed" in told:
        return told
    mix = {unit.name: _option(told["layers"][unit.layers[0]]) for unit in case.units}
    theirs = case.meter.measure(mix)
    space = case.space(case.measured().losses())
    ours = case.meter.measure(choose_within(space, theirs.file_bytes - case.sizes.rest_bytes(True)))
    table = slice(case.amounts.choosing, None)
    both = {"ours": asdict(part(ours, table)), "theirs": asdict(part(theirs, table))}
    return {"bits": bits, "cpu": told["cpu"], "chosen": {name: str(one) for name, one in mix.items()}, **both}


def autoscheme(case: Case, bits: float) -> dict[str, Any]:
    """The peer's last line; ``failed`` and why where it does not run."""
    python = environments()["auto-round"].own_python
    if python is None:
        return {"failed": "auto-round is not installed here: qrun backends install auto-round"}
    text = read_text("builtin", "calibration")
    pieces = [{"text": text[start : start + PIECE]} for start in range(0, len(text), PIECE)]
    texts = (case.out / "autoround.json").resolve()
    texts.write_text(json.dumps(pieces))
    amounts = [str(one) for one in (bits, 64, case.amounts.samples, case.amounts.length)]
    command = [str(python), str(PEER), str(case.folder.resolve()), str(texts), *amounts]
    environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=case.out, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _option(told: list[Any]) -> Option:
    bits, group, symmetric = told
    return Option(f"w{bits}a16-g{group}" + ("" if symmetric else "-asym"), "gptq")

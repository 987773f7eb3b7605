"""Feed every reader mutated files: only a QuantRecipeError may come out; no crash, no hang, no memory blow-up.

    python tools/fuzz_readers.py --inputs 100000 --seed 0

Each input is a good file of tests/ with a few mutations, some of bytes, some of its JSON or YAML. Readers run in this
process under an alarm and a limit of memory; a worker that dies is a failure as well. An input is made again from its
target, seed and number alone: ``--target index --only 1234``.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from quantrecipe.errors import QuantRecipeError
from tests.fuzzing.mutate import mutated, rng_for
from tests.fuzzing.targets import TARGETS, Target, make_seeds

SECONDS = 20.0
#: Growth of a worker's memory that one input may cause.
GROWTH = 512 * 2**20
ROOM = 4 * 2**30
CHUNK = 500


class Hang(BaseException):
    """Raised by the alarm; no reader may catch it as an error of its own."""


def _alarm(_: int, __: FrameType | None) -> None:
    raise Hang


def main() -> None:
    """Run the inputs, print the counts, exit 1 where a reader failed."""
    options = _options()
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    signal.signal(signal.SIGALRM, _alarm)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="quantrecipe-fuzz-") as root:
        make_seeds(Path(root) / "seeds", options.target or TARGETS)
        failures = sum(_run(name, options, Path(root)) for name in options.target or TARGETS)
    print(f"{failures} failures, {time.perf_counter() - began:.0f} s, seed {options.seed}")
    sys.exit(1 if failures else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="over all targets, by their shares")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--only", type=int, help="one input, with its traceback")
    return parser.parse_args()


def _run(name: str, options: argparse.Namespace, root: Path) -> int:
    target, began = TARGETS[name], time.perf_counter()
    if options.only is not None:
        outcome = one_input(target, root, options.seed, options.only)
        print(name, options.only, outcome)
        return 0 if outcome in ("read", "refused") else 1
    chosen = options.target or list(TARGETS)
    count = round(options.inputs * target.share / sum(TARGETS[one].share for one in chosen))
    found: Counter[str] = Counter()
    for start in range(0, count, CHUNK):
        found += _worker(target, root, options.seed, range(start, min(start + CHUNK, count)))
    bad = sum(number for outcome, number in found.items() if outcome not in ("read", "refused"))
    seconds = time.perf_counter() - began
    print(f"| {name} | {count} | {found['read']} | {found['refused']} | {bad} | {seconds:.0f} |", flush=True)
    return bad


def _worker(target: Target, root: Path, seed: int, numbers: range) -> Counter[str]:
    """A forked process that runs some inputs; what it printed last tells where it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w", buffering=1) as out:
            try:
                torch.set_num_threads(1)  # the threads that OpenMP began before the fork are not in this process
                _limit_memory()
                for number in numbers:
                    print(number, file=out)
                    print(one_input(target, root, seed, number), file=out)
            except BaseException:
                traceback.print_exc()
            finally:
                out.flush()
                os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as given:
        lines = given.read().splitlines()
    status = os.waitpid(child, 0)[1]
    outcomes = Counter(lines[1::2])
    if status or len(lines) < 2 * len(numbers):
        outcomes["died"] += 1
        print(f"  {target.name} {lines[-1] if lines else numbers[0]}: the process died, status {status}", flush=True)
    return outcomes


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def one_input(target: Target, root: Path, seed: int, number: int) -> str:
    """``read``, ``refused``, or what went wrong."""
    place = root / f"work-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    rng = rng_for(target.name, seed, number)
    target.prepare(root / "seeds", place, rng, lambda data, form: mutated(data, form, rng))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target.read(place)
        outcome = "read"
    except QuantRecipeError as error:
        outcome = "refused" if "\n" not in str(error) else "more than one line"
    except Hang:
        outcome = "hung"
    except BaseException as error:
        outcome = type(error).__name__
        print(f"  {target.name} {number}: {_where(error)}", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before > GROWTH:
        return "memory"
    if outcome in ("hung", "memory", "more than one line"):
        print(f"  {target.name} {number}: {outcome}", flush=True)
    return outcome


def _where(error: BaseException) -> str:
    frames: list[Any] = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "quantrecipe" in frame.filename and "tools" not in frame.filename]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:160]}"


if __name__ == "__main__":
    main()

"""Kills qrun at random moments and makes its disk fail at every write; each time it must go on to the same bytes.

    python tools/kill_test.py kill --points 20     # SIGKILL at 20 system calls and at 20 moments, SIGINT at 5, a case
    python tools/kill_test.py fault                # ENOSPC, EIO, EACCES at every system call that changes the disk

A run is a fork of this process, on a small random model (tests/families.py). Prints counts; exits 1 at a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from runner_models import make_workplace, recipe_data, timeless, write_recipe  # noqa: E402

from quantrecipe.modeling.journal import read_lines  # noqa: E402
from quantrecipe.plugins.native import straight  # noqa: E402
from quantrecipe.runner import ledger, scorers, verify  # noqa: E402
from quantrecipe.runner.baseline import read_results  # noqa: E402
from quantrecipe.runner.cli import main as qrun  # noqa: E402
from quantrecipe.runner.verify_process import answer  # noqa: E402
from tests import faults  # noqa: E402

#: They hold times; results.json is compared without them.
WITH_TIMES = ("results.json", "report.md", "report-layers.svg")
FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}


@dataclass(frozen=True)
class Case:
    name: str
    scheme: str
    method: str
    form: str
    words: tuple[str, ...] = ()
    overwrites: bool = False


CASES = {
    case.name: case
    for case in (
        Case("gptq", "w4a16-g32", "gptq", "auto"),
        Case("rtn", "w4a16-g32", "rtn", "auto"),
        Case("gptq-files", "w4a16-g32-asym", "gptq", "gptq_v2"),
        Case("spilled", "w3a16-g32", "gptq", "compressed-tensors", ("--spill", "always")),
        Case("overwriting", "w8a8", "gptq", "auto", ("--overwrite",), overwrites=True),
    )
}


class Bench:
    """One case in a folder of its own, with the bytes that an unbroken run gives."""

    def __init__(self, case: Case, root: Path) -> None:
        self.case, self.root, self.out = case, make_workplace(root), root / "out"
        data = recipe_data(root, case.scheme, case.method)
        data["quantization"]["format"] = case.form
        data["evaluation"]["perplexity"]["windows"] = 4
        self.recipe = write_recipe(root, data)
        self.old: dict[str, str] = {}
        began = time.perf_counter()
        self.calls = self._unbroken()
        self.seconds = time.perf_counter() - began
        self.wanted, self.told = hashes(self.out), timeless(read_results(self.out / "results.json"))
        if case.overwrites:
            (root / "old").mkdir()
            (root / "old" / "config.json").write_text("{}")
            self.old = hashes(root / "old")
        self.reset()

    def _unbroken(self) -> int:
        counts = self.root / "calls"

        def count() -> None:
            with faults.Disk() as disk:
                try:
                    self.run()
                finally:
                    counts.write_text(str(len(disk.calls)))

        if self.fork(count) != 0:
            raise SystemExit(f"{self.case.name}: the unbroken run failed: {self.said()}")
        return int(counts.read_text())

    def reset(self) -> None:
        for path in self.root.glob(".out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(self.out, ignore_errors=True)
        if self.old:
            shutil.copytree(self.root / "old", self.out)

    def run(self) -> None:
        qrun([str(self.recipe), *self.case.words])

    def fork(
        self, work: Callable[[], None], kill_after: float | None = None, with_signal: int = signal.SIGKILL
    ) -> int:
        """The exit code of ``work`` in a child, or minus the signal that ended it."""
        pid = os.fork()
        if pid == 0:
            said = os.open(self.root / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            code = 99
            try:
                work()
            except SystemExit as done:
                code = int(done.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, with_signal)
        status = os.waitpid(pid, 0)[1]
        return os.waitstatus_to_exitcode(status)

    def said(self) -> str:
        return (self.root / "said").read_text(errors="replace")

    def broken(self, act: Callable[[str], None], at: int) -> int:
        def work() -> None:
            with faults.Disk(at, act):
                self.run()

        return self.fork(work)

    def check_left(self) -> None:
        """What stands under the output's name is the old checkpoint, the whole new one, or nothing."""
        there = hashes(self.out) if self.out.exists() else {}
        if there not in ({}, self.old, self.wanted):
            raise Failure(f"something half-done stands in the output's place: {sorted(there)}")

    def check_resumes(self) -> str:
        """A second run goes on, and leaves the same bytes and nothing else; how it began."""
        done = self.out.exists() and hashes(self.out) == self.wanted
        lines = [line["kind"] for line in read_lines(self.root / ".out.quantrecipe-part")]
        code = self.fork(self.run)
        complete = code == 2 and done and not lines  # it was killed behind all of its work: a checkpoint like any
        if code != 0 and not complete:
            raise Failure(f"the second run ended with {code}: {self.said()}")
        if hashes(self.out) != self.wanted:
            changed = [name for name, digest in hashes(self.out).items() if self.wanted.get(name) != digest]
            raise Failure(f"the second run left other bytes: {changed or 'files are missing'}")
        if timeless(read_results(self.out / "results.json")) != self.told:
            raise Failure("the second run reports otherwise")
        left = [path.name for path in self.root.glob(".out*")]
        if left:
            raise Failure(f"left behind: {left}")
        if complete or "had finished" in self.said():
            return "had finished"
        if "going on behind quantizing" in self.said():
            return "went on behind quantizing"
        return "went on" if "going on" in self.said() else "began anew"


class Failure(Exception):
    """The promise was broken."""


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in WITH_TIMES)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_case(bench: Bench, points: int, chooser: random.Random, tally: Counter[str]) -> None:
    """SIGKILL at ``points`` system calls that change the disk, half-way through where they write; then at moments."""
    calls = chooser.sample(range(1, bench.calls + 1), min(points, bench.calls))
    attempts: list[tuple[str, Callable[[], int]]] = [
        (f"call {at} of {bench.calls}", lambda at=at: bench.broken(faults.kill, at))
        for at in calls  # type: ignore[misc]
    ]
    for _ in range(points):
        after = chooser.uniform(0, bench.seconds)
        attempts.append((f"{after:.3f} s", lambda after=after: bench.fork(bench.run, after)))  # type: ignore[misc]
    for name, attempt in attempts:
        bench.reset()
        code = attempt()
        one_attempt(bench, f"killed at {name}", lambda code=code: code in (-signal.SIGKILL, 0, 2), tally)  # type: ignore[misc]
        tally["SIGKILL"] += 1


def interrupt_case(bench: Bench, points: int, chooser: random.Random, tally: Counter[str]) -> None:
    """SIGINT at ``points`` moments, as Ctrl-C sends it: exit 130, one line, and the next run goes on."""
    for _ in range(points):
        bench.reset()
        after = chooser.uniform(0.1, 1) * bench.seconds
        code = bench.fork(bench.run, after, signal.SIGINT)

        def as_promised(code: int = code) -> bool:
            lines = [line for line in bench.said().splitlines() if line.startswith("qrun: interrupted")]
            return code == 0 or (code == 130 and len(lines) == 1 and "Traceback" not in bench.said())

        one_attempt(bench, f"interrupted at {after:.3f} s", as_promised, tally)
        tally["SIGINT"] += 1


def fault_case(bench: Bench, points: int, chooser: random.Random, tally: Counter[str]) -> None:
    """Each error at every call (or at ``points`` of them): exit 2, one line, and the next run goes on."""
    calls = range(1, bench.calls + 1)
    chosen = sorted(chooser.sample(calls, points)) if 0 < points < bench.calls else calls
    for name, code in FAULTS.items():
        for at in chosen:
            bench.reset()
            ended = bench.broken(faults.fail(code), at)

            def as_promised(ended: int = ended) -> bool:
                lines = [line for line in bench.said().splitlines() if line.startswith("qrun: ")]
                return ended == 0 or (ended == 2 and len(lines) == 1 and "Traceback" not in bench.said())

            tally["survived" if ended == 0 else "refused in one line"] += 1
            one_attempt(bench, f"{name} at call {at} of {bench.calls}", as_promised, tally)


def one_attempt(bench: Bench, what: str, as_promised: Callable[[], bool], tally: Counter[str]) -> None:
    tally["attempts"] += 1
    try:
        if not as_promised():
            raise Failure(f"not as promised: {bench.said()}")
        bench.check_left()
        tally[bench.check_resumes()] += 1
    except Failure as failure:
        tally["FAILED"] += 1
        print(f"  {bench.case.name}, {what}: {failure}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["kill", "fault"])
    parser.add_argument("--points", type=int, default=0, help="kill: 20 if not given; fault: every call")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    verify.ask = lambda request, _: answer(request.to_json())  # in this process: a fresh one takes seconds to import
    straight.SHARD_BYTES = 20_000  # several shards, small as the model is
    scorers.TOKENS_A_BATCH, ledger.LEAST_SECONDS = 64, 0.0  # several batches, and passes worth keeping
    total: Counter[str] = Counter()
    for name in given.cases:
        with tempfile.TemporaryDirectory(prefix="quantrecipe-kill-") as folder:
            bench, tally = Bench(CASES[name], Path(folder)), Counter[str]()
            chooser = random.Random(f"{given.seed} {name}")
            if given.what == "kill":
                kill_case(bench, given.points or 20, chooser, tally)
                interrupt_case(bench, max((given.points or 20) // 4, 1), chooser, tally)
            else:
                fault_case(bench, given.points, chooser, tally)
            counts = ", ".join(f"{count} {key}" for key, count in sorted(tally.items()))
            print(f"{name}: {bench.calls} calls change the disk, {bench.seconds:.1f} s a run; {counts}", flush=True)
            total += tally
    print(f"in all: {', '.join(f'{count} {key}' for key, count in sorted(total.items()))}")
    return 1 if total["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())

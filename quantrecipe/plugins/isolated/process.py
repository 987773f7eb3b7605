"""A worker process: started, listened to, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from quantrecipe.errors import BackendError
from quantrecipe.plugins.contract import Progress

WORKERS = Path(__file__).parent / "workers"
#: Seconds that a worker has to end by itself before it is killed.
GRACE = 5.0
#: What a worker inherits: nothing of this package's import path, no hub, threads that sleep while they wait.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
}


class Silent:
    """Progress that nobody watches."""

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """Nothing."""

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Worker:
    """One worker under way; use as a context manager, which kills it and its children on leaving.

    Raises BackendError where it refuses, fails, is killed, or says what is no event.
    """

    def __init__(self, name: str, python: Path, script: Path, order: Path) -> None:
        self.name = name
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        self._process = subprocess.Popen(
            [str(python), str(script), str(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**ENVIRONMENT, **inherited},
            start_new_session=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def events(self, progress: Progress) -> Iterator[dict[str, Any]]:
        """Events that are no progress; those go to ``progress``. Ends when the worker does."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = self._parse(line)
            kind = event.pop("event")
            if kind == "start":
                progress.start(event["stage"], event.get("total"), event.get("unit", "blocks"))
            elif kind == "advance":
                progress.advance(event.get("amount", 1), **event.get("details", {}))
            elif kind == "note":
                progress.note(event["text"])
            elif kind == "error":
                raise BackendError(f"{self.name}: {event['what']}", remedy=event.get("remedy"))
            else:
                yield {"event": kind, **event}

    def run(self, progress: Progress) -> dict[str, Any]:
        """Wait for its ``done``; what came with it."""
        for event in self.events(progress):
            if event["event"] == "done":
                return event
        raise self._ended()

    def ask(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """One request to a serving worker, and its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        return self.wait("answer", progress)

    def wait(self, kind: str, progress: Progress) -> dict[str, Any]:
        """The next event of that kind."""
        for event in self.events(progress):
            if event["event"] == kind:
                return event
        raise self._ended()

    def close(self) -> None:
        """End it: by closing its stdin, then by SIGKILL to it and its children."""
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        try:
            self._process.wait(GRACE if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def _parse(self, line: str) -> dict[str, Any]:
        try:
            event = json.loads(line)
        except ValueError as error:
            raise BackendError(f"{self.name}: its worker said what is no event", value=line.strip()[:200]) from error
        if not isinstance(event, dict) or "event" not in event:
            raise BackendError(f"{self.name}: its worker said what is no event", value=line.strip()[:200])
        return event

    def _ended(self) -> BackendError:
        """Why a worker is gone that should be there."""
        code = self._process.wait()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        remedy = "it may have run out of memory" if code == -signal.SIGKILL else None
        return BackendError(f"{self.name}: its worker ended early", value=how, limit=self._last_line(), remedy=remedy)

    def _last_line(self) -> str | None:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else None

"""Makes the disk fail, or the process die, at a chosen system call of quantrecipe/modeling/files.py."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantrecipe.modeling import files

#: The calls of ``os`` that change the disk, or promise that it has changed.
CHANGING = ("open", "write", "fsync", "rename", "makedirs", "ftruncate", "copy_file_range")


class Disk:
    """Counts the calls that change the disk; at number ``at`` it calls ``act`` with the call's name.

    A write, a copy and a removal are half done by then, anything else has not begun.
    """

    def __init__(self, at: int | None = None, act: Callable[[str], None] = lambda name: None) -> None:
        self.at, self.act, self.calls = at, act, []  # type: ignore[var-annotated]

    def __enter__(self) -> Disk:
        self._before = files.os, files.shutil, files._exchanged
        files.os = _Calls(os, CHANGING, self)  # type: ignore[assignment]
        files.shutil = _Calls(shutil, ("rmtree",), self)  # type: ignore[assignment]
        files._exchanged = self._exchange
        return self

    def __exit__(self, *_: object) -> None:
        files.os, files.shutil, files._exchanged = self._before  # type: ignore[assignment]

    def _exchange(self, new: Path, old: Path) -> bool:
        self.count("exchange")
        return self._before[2](new, old)

    def count(self, name: str, half: Callable[[], Any] = lambda: None) -> None:
        self.calls.append(name)
        if len(self.calls) == self.at:
            half()
            self.act(name)


class _Calls:
    """A module as seen through the disk."""

    def __init__(self, module: Any, names: tuple[str, ...], disk: Disk) -> None:
        self._module, self._names, self._disk = module, names, disk

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._module, name)
        if name not in self._names:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._disk.count(name, lambda: _half(name, real, args))
            return real(*args, **kwargs)

        return call


def _half(name: str, real: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if name == "write":
        real(args[0], args[1][: len(args[1]) // 2])
    elif name == "copy_file_range":
        real(args[0], args[1], max(args[2] // 2, 1), *args[3:])
    elif name == "rmtree":
        for path in sorted(Path(args[0]).iterdir())[::2]:
            path.unlink() if path.is_file() else shutil.rmtree(path)


def kill(_: str) -> None:
    """As the kernel ends a process that ran out of memory: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(code: int) -> Callable[[str], None]:
    """An OSError with that errno."""

    def act(_: str) -> None:
        raise OSError(code, os.strerror(code))

    return act

"""The output folder: filled under a temporary name, locked, and put in its place in one step or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantrecipe.errors import OutputError
from quantrecipe.modeling.writer import fsync

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(slots=True)
class Staging:
    """A temporary folder beside the output, on the same file system."""

    output: Path
    folder: Path
    placed: bool = False

    def place(self) -> None:
        """Rename the temporary folder to the output; an older output is exchanged for it and removed."""
        for path in sorted(self.folder.rglob("*")):
            fsync(path)
        fsync(self.folder)
        if self.output.is_symlink() or not self.output.exists():
            self.folder.rename(self.output)
        elif not any(self.output.iterdir()):
            self.output.rmdir()
            self.folder.rename(self.output)
        else:
            _exchange(self.folder, self.output)
            shutil.rmtree(self.folder)
        self.placed = True
        fsync(self.output.parent)


@contextmanager
def staging(output: Path, overwrite: bool = False, keep: Path | None = None) -> Iterator[Staging]:
    """A locked temporary folder for ``output``; removed again unless it was placed.

    keep: the model's own folder, which must not be overwritten. Raises OutputError where the output holds a
    checkpoint (without ``overwrite``) or anything else, is in use by another run, or cannot be written.
    """
    output = output.absolute()
    check_output(output, overwrite, keep)
    with _lock(output):
        check_output(output, overwrite, keep)
        stage = Staging(output, _temporary(output))
        try:
            yield stage
        finally:
            if not stage.placed:
                shutil.rmtree(stage.folder, ignore_errors=True)


def check_output(output: Path, overwrite: bool, keep: Path | None = None) -> None:
    """Raises OutputError where the output may not be written; changes nothing."""
    if keep is not None and _contains(output, keep):
        raise OutputError(
            "the output folder is or holds the model's own folder", value=str(output), remedy="choose another output"
        )
    if not output.exists():
        return
    if not output.is_dir():
        raise OutputError("the output is a file", value=str(output), remedy="choose another output")
    if not any(output.iterdir()):
        return
    if not holds_checkpoint(output):
        raise OutputError(
            "the output folder holds files that are no checkpoint",
            value=str(output),
            remedy="choose another output, or empty it",
        )
    if not overwrite:
        raise OutputError(
            "the output folder already holds a checkpoint",
            value=str(output),
            remedy="choose another output, or replace it with --overwrite",
        )


def holds_checkpoint(folder: Path) -> bool:
    """Whether a folder looks like a model's."""
    return (folder / "config.json").is_file() or any(folder.glob("*.safetensors"))


def _contains(output: Path, model: Path) -> bool:
    real, other = output.resolve(), model.resolve()
    return real == other or real in other.parents


def _temporary(output: Path) -> Path:
    """An empty folder beside the output, with the permissions of any new folder."""
    with _explained(output.parent):
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
        mask = os.umask(0)
        os.umask(mask)
        folder.chmod(0o777 & ~mask)
        return folder


@contextmanager
def _lock(output: Path) -> Iterator[None]:
    """Hold ``.<name>.lock`` beside the output while a run writes it."""
    path = output.parent / f".{output.name}.lock"
    with _explained(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if not _locked(handle, path):
        os.close(handle)
        raise OutputError(
            "another run is writing this output", value=str(output), remedy="wait for it, or choose another output"
        )
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _locked(handle: int, path: Path) -> bool:
    """Whether the lock is ours, and on the file that others see (a run that ends removes its file)."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(handle).st_ino
    except OSError:
        return False


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            "cannot write there", value=str(folder), limit=error.strerror, remedy="choose another output"
        ) from error


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step where the kernel can (Linux), else in two renames."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        done = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
        if done == 0:
            return
        if ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(old))
    aside = new.with_name(f"{new.name}-old")
    old.rename(aside)
    try:
        new.rename(old)
    except OSError:
        with contextlib.suppress(OSError):
            aside.rename(old)
        raise
    aside.rename(new)

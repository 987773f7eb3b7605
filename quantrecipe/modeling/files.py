"""Every write to the disk: whole or not at all where it can be, flushed, and one error where it fails.

All system calls that change the disk go through ``os`` as this module sees it: the fault tests replace it
(tools/faults.py). Sources: fsync(2), rename(2), renameat2(2), copy_file_range(2).
"""
# ruff: noqa: PTH103, PTH104 - through os, for that reason

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from quantrecipe.errors import OutputError

#: Bytes a write: large enough for the disk, small enough to be interrupted.
PIECE = 16 * 2**20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
Bytes = bytes | memoryview
#: What the kernel says where it cannot copy between these two files by itself.
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)

_FREE = "free space or choose another output"
_REMEDIES = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EIO: "look at the disk's health, or choose another output",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "choose another output")
        raise OutputError("cannot write", value=str(path), limit=reason, remedy=remedy) from error


class NewFile:
    """A file being written from its beginning; as a context manager, flushed to the disk when it ends well.

    digest: sha256 over what ``write`` was given.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.digest = path, hashlib.sha256()
        with explained(path):
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def write(self, data: Bytes) -> None:
        """Append bytes."""
        self.digest.update(data)
        with explained(self.path):
            write_all(self._handle, data)

    def copy(self, source: int, offset: int, count: int) -> None:
        """Append ``count`` bytes of the open file ``source``, by the kernel where it can."""
        with explained(self.path):
            _copy(source, offset, count, self._handle)

    def flush(self) -> None:
        """Wait until the disk has it."""
        with explained(self.path):
            os.fsync(self._handle)

    def close(self) -> None:
        """Close it; flushing is ``flush``'s work."""
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.close()


def write_all(handle: int, data: Bytes) -> None:
    """Write all of ``data``; a disk may take it in pieces."""
    rest = memoryview(data).cast("B")
    while rest:
        done = os.write(handle, rest[:PIECE])
        rest = rest[done:]


def _copy(source: int, offset: int, count: int, target: int) -> None:
    while count:
        try:
            done = os.copy_file_range(source, target, min(count, PIECE), offset)
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            done = 0
        if not done:
            data = os.pread(source, min(count, PIECE), offset)
            if not data:
                raise OSError(errno.EIO, "the file is shorter than it was")
            write_all(target, data)
            done = len(data)
        offset, count = offset + done, count - done


def write_file(path: Path, pieces: Iterable[Bytes]) -> None:
    """A file under its final name, flushed; for folders that are not in their place yet."""
    with NewFile(path) as file:
        for piece in pieces:
            file.write(piece)


def write_whole(path: Path, pieces: Iterable[Bytes]) -> None:
    """A file that is there whole or not at all: written beside, flushed, renamed; the folder is flushed too."""
    beside = path.with_name(f"{path.name}.tmp")
    write_file(beside, pieces)
    rename(beside, path)
    fsync(path.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes and flush them."""
    with source.open("rb") as given, NewFile(target) as file:
        file.copy(given.fileno(), 0, os.fstat(given.fileno()).st_size)


def rename(old: Path, new: Path) -> None:
    """Rename within one file system, in one step."""
    with explained(new):
        os.rename(old, new)


def make_folder(path: Path) -> Path:
    """A folder with those above it; there already is fine."""
    with explained(path):
        os.makedirs(path, exist_ok=True)
    return path


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def fsync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    with explained(path):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step where the kernel can (Linux), else in two renames."""
    with explained(old):
        if not _exchanged(new, old):
            _exchange_by_renames(new, old)


def _exchanged(new: Path, old: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE)
    if done and ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(old))
    return not done


def _exchange_by_renames(new: Path, old: Path) -> None:
    aside = new.with_name(f"{new.name}-old")
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except OSError:
        with contextlib.suppress(OSError):
            os.rename(aside, old)
        raise
    os.rename(aside, new)

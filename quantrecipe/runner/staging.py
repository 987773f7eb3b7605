"""The output folder: filled beside it, locked, and put in its place in one step or not at all.

Beside ``out`` lies ``.out.quantrecipe-part`` while a run is under way and where one was stopped: the journal, what is
finished, and ``checkpoint``, which becomes the output. None of it can be taken for a checkpoint: only the last step
gives it the output's name. ``.out.lock`` keeps two runs from one output (flock: the kernel lets go of it however a
run ends; on NFS it holds among machines where the server does locking, since Linux 2.6.12, and not with nolock).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantrecipe.errors import BackendError, DamageError, ModelError, OutputError
from quantrecipe.modeling.files import exchange, explained, fsync, make_folder, remove, rename
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.modeling.identity import differences
from quantrecipe.modeling.journal import FILE, Journal, read_lines

#: The file that tells one finished checkpoint from another: it holds the hashes of all others.
MARK = "provenance.json"


@dataclass(slots=True)
class Staging:
    """The scratch folder beside the output, on the same file system.

    command: what to run to go on. begun: its journal is this run's. ended: a run that was stopped behind its last
    step had put its checkpoint in place; ``begin`` makes sure that it was this run.
    """

    output: Path
    scratch: Path
    command: str = "the same command"
    begun: bool = False
    ended: bool = False
    placed: bool = False

    @property
    def folder(self) -> Path:
        """What becomes the output."""
        return self.scratch / "checkpoint"

    def begin(self, identity: dict[str, str], overwrite: bool = False) -> None:
        """Start the scratch folder, or go on with one that a stopped run has left.

        Raises OutputError where that run was another, naming what differs; ``overwrite`` starts anew then.
        """
        before = next((line["identity"] for line in read_lines(self.scratch) if line["kind"] == "begin"), None)
        changed = [] if before is None else differences(before, identity)
        if self.ended and not changed:
            self.placed = True
            return
        if self.ended:
            remove_scratch(self.scratch)
            check_output(self.output, overwrite)
            self.ended = False
        elif changed and not overwrite:
            raise OutputError(
                f"a run that was stopped here differs from this one in {', '.join(changed)}",
                value=str(self.scratch),
                remedy="put that back to go on where it was, or start anew with --overwrite",
            )
        if changed or before is None:
            remove_scratch(self.scratch)
            make_folder(self.scratch)
            journal = Journal(self.scratch)
            journal.add("begin", identity=identity)
            journal.close()
        make_folder(self.folder)
        fsync(self.output.parent)
        self.begun = True

    def place(self) -> None:
        """Rename the finished folder to the output; an older output is exchanged for it and removed."""
        for path in sorted(self.folder.rglob("*")):
            fsync(path)
        fsync(self.folder)
        journal = Journal(self.scratch)
        if (self.folder / MARK).exists():
            journal.add("placing", mark=sha256_file(self.folder / MARK))
        journal.close()
        if self.output.is_symlink() or not self.output.exists():
            rename(self.folder, self.output)
        elif not any(self.output.iterdir()):
            self.output.rmdir()
            rename(self.folder, self.output)
        else:
            exchange(self.folder, self.output)
        self.placed = True
        fsync(self.output.parent)
        remove_scratch(self.scratch)

    @property
    def parts(self) -> int:
        """How many blocks, shards (where nothing is computed block by block) and later findings the journal holds."""
        lines = [line for line in read_lines(self.scratch) if line["kind"] in ("block", "shard", "found")]
        return len({(line["kind"], line.get("place", line.get("index", line.get("what")))) for line in lines})


@contextmanager
def staging(
    output: Path, overwrite: bool = False, keep: Path | None = None, command: str | None = None
) -> Iterator[Staging]:
    """A locked place for ``output``'s making. Unless it was placed, what is finished stays for the next run.

    keep: the model's own folder, which must not be overwritten. command: what to run to go on. Raises OutputError
    where the output holds a checkpoint (without ``overwrite``) or anything else, is in use by another run, or cannot
    be written.
    """
    output = output.absolute()
    if not scratch_of(output).exists():
        check_output(output, overwrite, keep)
    with _lock(output):
        stage = Staging(output, scratch_of(output), command or "the same command", ended=_ended(output))
        if not read_lines(stage.scratch):
            remove(stage.scratch)  # killed before its first line or behind its last step
        if not stage.ended:
            check_output(output, overwrite, keep)
        try:
            yield stage
        except BaseException as error:
            _leave(stage, error)
            raise


def scratch_of(output: Path) -> Path:
    """The scratch folder of an output."""
    return output.with_name(f".{output.name}.quantrecipe-part")


def _leave(stage: Staging, error: BaseException) -> None:
    """Keep what another run can go on from and say so; remove what it cannot."""
    if stage.placed:
        if stage.scratch.exists():
            error.add_note(f"the checkpoint is whole and in its place; {stage.command} tells how it went")
        return
    hopeless = stage.begun and isinstance(error, BackendError | ModelError | DamageError)
    parts = 0 if hopeless else stage.parts
    if parts:
        error.add_note(f"the work done so far (parts: {parts}) is kept; {stage.command} goes on from there")
    elif stage.begun:
        remove_scratch(stage.scratch)


def remove_scratch(scratch: Path) -> None:
    """Remove a scratch folder, its journal last: as long as anything is there, it says what."""
    for path in sorted(scratch.iterdir()) if scratch.is_dir() else ():
        if path.name != FILE:
            remove(path)
    remove(scratch)


def _ended(output: Path) -> bool:
    """Whether a stopped run had put its checkpoint in place already, and left only its scratch folder."""
    placing = [line for line in read_lines(scratch_of(output)) if line["kind"] == "placing"]
    mark = output / MARK
    return bool(placing) and mark.is_file() and sha256_file(mark) == placing[-1]["mark"]


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


@contextmanager
def _lock(output: Path) -> Iterator[None]:
    """Hold ``.<name>.lock`` beside the output while a run writes it."""
    path = output.parent / f".{output.name}.lock"
    make_folder(output.parent)
    with explained(output.parent):
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

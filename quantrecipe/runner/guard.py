"""What a user sees when something goes wrong: one line and an exit code; a traceback only with --debug."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable

import click

from quantrecipe.errors import QuantRecipeError

WRONG, INTERRUPTED = 2, 130
NOTHING_LEFT = "; nothing half-written was left behind"
_EXPLAINED = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "no such file",
    errno.EIO: "the device reports an error",
    errno.EPIPE: "the reader of the output has gone",
}


def guarded(work: Callable[[], int | None], debug: bool) -> int:
    """The exit code of ``work``; what it raises becomes one line on stderr."""
    try:
        return work() or 0
    except click.ClickException as error:
        error.show()
        return WRONG
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        return _say(f"interrupted{_notes(error) or NOTHING_LEFT}", INTERRUPTED, debug)
    except QuantRecipeError as error:
        return _say(f"error: {error.line()}{_notes(error)}", error.exit_code, debug)
    except OSError as error:
        return _say(f"error: {_os_line(error)}{_notes(error)}", WRONG, debug)
    except MemoryError as error:
        text = "out of memory; fewer or shorter calibration samples need less"
        return _say(f"error: {text}{_notes(error)}", WRONG, debug)
    except Exception as error:
        text = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return _say(f"error: {text}; run with --debug for details{_notes(error)}", WRONG, debug)


def _notes(error: BaseException) -> str:
    """What was noted on the way up, such as how to go on; click wraps an interrupt."""
    notes = [*getattr(error, "__notes__", ()), *getattr(error.__cause__, "__notes__", ())]
    return "".join(f"; {note}" for note in notes)


def _say(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"qrun: {line}", file=sys.stderr)
    return code


def _os_line(error: OSError) -> str:
    what = _EXPLAINED.get(error.errno or 0) or error.strerror or str(error)
    where = f": {error.filename}" if error.filename else ""
    remedy = "; free space or choose another output" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{what}{where}{remedy}"

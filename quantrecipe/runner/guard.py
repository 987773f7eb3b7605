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
    except (KeyboardInterrupt, click.Abort):
        return _say(f"interrupted{NOTHING_LEFT}", INTERRUPTED, debug)
    except QuantRecipeError as error:
        return _say(f"error: {error.line()}", error.exit_code, debug)
    except OSError as error:
        return _say(f"error: {_os_line(error)}", WRONG, debug)
    except MemoryError:
        return _say("error: out of memory; fewer or shorter calibration samples need less", WRONG, debug)
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        return _say(f"error: unexpected {type(error).__name__}: {text}; run with --debug for details", WRONG, debug)


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

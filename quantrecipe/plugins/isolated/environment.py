"""Where a backend's library lives: this interpreter where it can be imported, else an environment of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path

from quantrecipe.errors import BackendError

READY = ".quantrecipe-ready"


@dataclass(frozen=True, slots=True)
class Environment:
    """One backend's library and the versions that run with it.

    library: the distribution. module: what must be importable. packages, then no_deps (without their
    dependencies), are what pip is asked for.
    """

    name: str
    library: str
    module: str
    packages: tuple[str, ...]
    no_deps: tuple[str, ...] = ()
    build_isolation: bool = True

    @property
    def folder(self) -> Path:
        """Where its own virtual environment lies, or would."""
        return home() / self.name

    @property
    def own_python(self) -> Path | None:
        """The interpreter of its own environment; None where that was not installed to the end."""
        python = self.folder / "bin" / "python"
        return python if (self.folder / READY).exists() and python.exists() else None

    def python(self) -> Path | None:
        """The interpreter to run the library with: its own environment's, else this one; None if neither has it."""
        if self.own_python is not None:
            return self.own_python
        return Path(sys.executable) if self.importable_here() else None

    def importable_here(self) -> bool:
        """Whether this interpreter has the library; looks at its place, imports nothing of it."""
        try:
            return find_spec(self.module) is not None
        except ModuleNotFoundError:
            return False

    def version(self) -> str | None:
        """The library's version where it would run."""
        if self.own_python is None:
            return _version(self.library, None)
        return _version(self.library, self.folder)


def home() -> Path:
    """The folder of all backends' environments: $QUANTRECIPE_HOME/backends, else under the user's data folder."""
    given = os.environ.get("QUANTRECIPE_HOME")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return (Path(given) if given else data / "quantrecipe") / "backends"


@cache
def environments() -> dict[str, Environment]:
    """Every environment known, by the backend's name: versions that ran together on Python 3.11 in November 2026.

    no_deps are installed last, without their dependencies. JSON, since qadvise reads it at each start.
    """
    data = json.loads((Path(__file__).parent / "environments.json").read_bytes())
    return {
        name: Environment(
            name,
            entry["library"],
            entry["module"],
            tuple(entry["packages"]),
            tuple(entry.get("no_deps", ())),
            entry.get("build_isolation", True),
        )
        for name, entry in data.items()
    }


def install(environment: Environment, say: Callable[[str], None]) -> Path:
    """Make the environment anew and return its interpreter. Raises BackendError where pip fails."""
    import shutil
    import venv

    folder = environment.folder
    if folder.exists():
        shutil.rmtree(folder)
    say(f"making {folder}")
    venv.create(folder, with_pip=True, symlinks=True)
    shared = share_torch(folder)
    if shared:
        say(f"torch {shared} is shared with this environment")
    pins = folder / "constraints.txt"
    pins.write_text(f"torch=={shared}\n" if shared else "", encoding="utf-8")
    flags = ["-c", str(pins)]
    if not shared:
        _pip(folder, say, "torch", *flags)
    if not environment.build_isolation:
        _pip(folder, say, *(name for name in environment.packages[:-1]), *flags)
        _pip(folder, say, environment.packages[-1], "--no-build-isolation", *flags)
    else:
        _pip(folder, say, *environment.packages, *flags)
    if environment.no_deps:
        _pip(folder, say, *environment.no_deps, "--no-deps", *flags)
    (folder / READY).touch()
    python = environment.own_python
    assert python is not None
    return python


def _pip(folder: Path, say: Callable[[str], None], *words: str) -> None:
    import subprocess

    say("pip install " + " ".join(word for word in words if not word.startswith(("-", str(folder)))))
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BackendError(
            "pip could not install the backend",
            value=folder.name,
            limit=(lines[-1] if lines else "no output")[:300],
            remedy="check the network and the disk, then run it again",
        )


def share_torch(folder: Path) -> str | None:
    """Link this environment's torch and its dependencies into a new one of the same Python; its version, or None.

    Links, since torch is the large part (700 MB). pip sees them as installed and, with torch pinned, leaves them.
    """
    here = {dist.name.lower().replace("_", "-"): dist for dist in distributions()}
    if "torch" not in here:
        return None
    site = next(folder.glob("lib/python*/site-packages"))
    torch = here["torch"]
    for name in sorted({Path(str(file)).parts[0] for file in torch.files or ()} - {"..", "__pycache__"}):
        source = Path(str(torch.locate_file(name)))
        if source.exists() and not (site / name).exists():
            (site / name).symlink_to(source)
    return torch.version


def _version(library: str, folder: Path | None) -> str | None:
    if folder is None:
        try:
            return version(library)
        except PackageNotFoundError:
            return None
    sites = [str(site) for site in folder.glob("lib/python*/site-packages")]
    return next((dist.version for dist in distributions(name=library, path=sites)), None)

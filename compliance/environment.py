"""Finds the test suite on this machine, or sets it up.

The suite is a program for CPython 2.7, so it lives in a virtual environment of its own:

    CACHE/virtualenv/   an environment of the running Python with the last `virtualenv` that still
                        makes environments for 2.7
    CACHE/suite/        the environment made by it: CPython 2.7 and requirements.txt

Nothing of it touches the environment gevffi runs in. A stamp in CACHE/suite says what was
installed with which interpreter; anything half-done or out of date is made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

from compliance.errors import NotHereError

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements.txt"
VIRTUALENV = "virtualenv<20.22"
INSTALL_SECONDS = 300.0

_WHAT = (
    "import sys, platform; "
    "print(platform.python_implementation() + ' %d.%d' % sys.version_info[:2])"
)


def _candidates() -> Iterator[Path]:
    """Where a CPython 2.7 may be: on the path, or among the versions of pyenv."""
    for name in ("python2.7", "python2"):
        if (found := shutil.which(name)) is not None:
            yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob("versions/2.7.*/bin/python2.7"), reverse=True)


def _is_python27(path: Path) -> bool:
    """Whether the program is CPython 2.7; pyenv puts some on the path that only complain."""
    try:
        said = subprocess.run(
            [path, "-c", _WHAT], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.returncode == 0 and said.stdout.strip() == "CPython 2.7"


def find_python27(chosen: Path | None = None) -> Path:
    """The CPython 2.7 to use: `chosen`, or else the first that is found.

    Raises:
        NotHereError: `chosen` is not one, or there is none.
    """
    for path in [chosen] if chosen is not None else _candidates():
        if _is_python27(path):
            return path
    where = str(chosen) if chosen is not None else "python2.7 on the path or in pyenv"
    raise NotHereError(f"the test suite needs CPython 2.7 and found none ({where})")


def _run(words: str, command: Sequence[str | Path]) -> None:
    """Run one step of the installation.

    Raises:
        NotHereError: it failed or did not end; the end of what it wrote is in the message.
    """
    print(f"compliance: {words}", file=sys.stderr, flush=True)
    try:
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotHereError(f"{words}: not done after {INSTALL_SECONDS:g} s") from None
    if result.returncode != 0:
        raise NotHereError(f"{words}: failed\n{result.stdout[-2000:].strip()}")


def prepare(cache: Path, chosen: Path | None = None) -> Path:
    """Return the folder with the suite's programs, after setting it up if need be.

    Takes under a minute the first time, and needs a package index and a C compiler then.

    Args:
        cache: a folder for this alone; made if it is not there.
        chosen: the CPython 2.7 to use; found by itself when None.

    Raises:
        NotHereError: there is no CPython 2.7, or the suite cannot be installed, as there is no
            package index that can be reached, for one.
    """
    python = find_python27(chosen)
    suite = cache / "suite"
    stamp = suite / "installed"
    wanted = f"{python}\n{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()}\n"
    if not stamp.exists() or stamp.read_text() != wanted:
        maker = cache / "virtualenv"
        shutil.rmtree(suite, ignore_errors=True)
        shutil.rmtree(maker, ignore_errors=True)
        venv.create(maker, with_pip=True)
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(f"installing {VIRTUALENV}", [maker / "bin" / "python", *pip, VIRTUALENV])
        _run(
            f"making an environment for {python}",
            [maker / "bin" / "virtualenv", "--quiet", "--python", python, suite],
        )
        _run(
            "installing the test suite",
            [suite / "bin" / "python", *pip, "--requirement", REQUIREMENTS],
        )
        stamp.write_text(wanted)
    return suite / "bin"

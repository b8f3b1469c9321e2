"""Building a copy of the tree, so that the extension built in place stays as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNNEEDED = (".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "_ffi.c")


@contextlib.contextmanager
def built_copy(name: str, environment: dict[str, str]) -> Iterator[Path]:
    """A folder with a copy of the tree, built in place with `environment` added to ours."""
    with tempfile.TemporaryDirectory(prefix=f"gevffi-{name}-") as place:
        folder = Path(place) / "gevffi"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*UNNEEDED))
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(build, cwd=folder, env=os.environ | environment, check=True)
        yield folder


def run_pytest(folder: Path, arguments: list[str], environment: dict[str, str]) -> int:
    """Run the copy's tests, `environment` added to ours; returns pytest's exit status."""
    added = {"PYTHONPATH": str(folder), "PYTHONFAULTHANDLER": "1", **environment}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | added, check=False).returncode

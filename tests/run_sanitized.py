"""The Python tests once more, over an extension built with ASan and UBSan.

    python tests/run_sanitized.py                                all but the C programs
    python tests/run_sanitized.py tests/test_ringbuf.py -x

`test_c_core.py` runs the C core alone; this runs it as Python uses it: memoryviews over mapped
rings, finalizers, several loops in threads. The tree is copied, so the extension that is built in
place stays as it is. The interpreter itself is not instrumented: the sanitizer is loaded in front
of it, and since CPython leaves memory to the end of the process on purpose, leaks are not asked
about.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("gevffi", "tests", "examples", "setup.py", "pyproject.toml", "README.md", "LICENSE")
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1 -fno-omit-frame-pointer"
# A full machine is played with RLIMIT_AS, under which the sanitizer's own shadow has no room.
ALL_TESTS = ["tests", "-k", "not c_core and not full_machine"]


def runtime() -> str:
    """Return the compiler's AddressSanitizer library, for LD_PRELOAD."""
    compiler = os.environ.get("CC", "cc").split()
    found = subprocess.check_output([*compiler, "-print-file-name=libasan.so"], text=True).strip()
    if not Path(found).is_absolute():
        raise SystemExit(f"{compiler[0]} has no libasan.so; CC=gcc has one")
    return found


def copy_tree(folder: Path) -> None:
    """Copy what building and testing need, without anything built before."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("*.so", "_ffi.c", "__pycache__", "*.egg-info")
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.exists():
            shutil.copy(source, folder)


def main(arguments: list[str]) -> int:
    """Build, run pytest with `arguments`, and return its exit status."""
    with tempfile.TemporaryDirectory(prefix="gevffi-sanitized-") as name:
        folder = Path(name)
        copy_tree(folder)
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(
            build, cwd=folder, env=os.environ | {"CFLAGS": FLAGS, "LDFLAGS": FLAGS}, check=True
        )
        environment = os.environ | {
            "LD_PRELOAD": runtime(),
            # With abort() faulthandler shows where Python was.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONPATH": str(folder),
            "PYTHONFAULTHANDLER": "1",
        }
        test = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(arguments or ALL_TESTS)]
        return subprocess.run(test, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

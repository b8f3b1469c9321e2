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
UNNEEDED = (".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "_ffi.c")
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1 -fno-omit-frame-pointer"
# A full machine is played with RLIMIT_AS, under which the sanitizer's own shadow has no room; and
# idle connections are weighed, with the shadow on the scales.
ALL_TESTS = ["tests", "-k", "not c_core and not full_machine and not are_weighed"]


def preloaded() -> str:
    """Return what LD_PRELOAD needs: the compiler's ASan library, and libstdc++, whose exceptions
    it can only follow when both are there from the start (matplotlib throws some)."""
    compiler = os.environ.get("CC", "cc").split()
    found = []
    for library in ("libasan.so", "libstdc++.so.6"):
        command = [*compiler, f"-print-file-name={library}"]
        path = subprocess.check_output(command, text=True).strip()
        if not Path(path).is_absolute():
            raise SystemExit(f"{compiler[0]} has no {library}; CC=gcc has it")
        found.append(path)
    return " ".join(found)


def main(arguments: list[str]) -> int:
    """Build, run pytest with `arguments`, and return its exit status."""
    with tempfile.TemporaryDirectory(prefix="gevffi-sanitized-") as name:
        folder = Path(name) / "gevffi"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*UNNEEDED))
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
        subprocess.run(
            build, cwd=folder, env=os.environ | {"CFLAGS": FLAGS, "LDFLAGS": FLAGS}, check=True
        )
        environment = os.environ | {
            "LD_PRELOAD": preloaded(),
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

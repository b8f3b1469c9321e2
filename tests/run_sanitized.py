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
import subprocess
import sys
from pathlib import Path

from elsewhere import built_copy, run_pytest

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1 -fno-omit-frame-pointer"
# A full machine is played with RLIMIT_AS, under which the sanitizer's own shadow has no room; and
# idle connections are weighed, with the shadow on the scales. And the preloaded library gets into
# programs of others too: socketify uses memory after it was freed, curl may hang, Chromium
# brings an allocator of its own, and a compiler that makes a wheel would only be slow.
ALL_TESTS = [
    "tests",
    "-k",
    "not c_core and not full_machine and not are_weighed and not socketify "
    "and not metrics_are_where_it_says and not test_browser and not what_is_distributed",
]


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
    with built_copy("sanitized", {"CFLAGS": FLAGS, "LDFLAGS": FLAGS}) as folder:
        environment = {
            "LD_PRELOAD": preloaded(),
            # With abort() faulthandler shows where Python was.
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return run_pytest(folder, arguments or ALL_TESTS, environment)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

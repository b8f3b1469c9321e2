"""The C core alone, under AddressSanitizer and UndefinedBehaviorSanitizer.

Every `c/test_*.c` is a program; it is linked with all of `gevffi/sys/csrc`, run, and must return 0.
There is no Python in it, so nothing that a sanitizer sees comes from anywhere else.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parent / "gevffi" / "sys" / "csrc"
PROGRAMS = sorted((HERE / "c").glob("test_*.c"))
FLAGS = [
    "-std=gnu11",
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pthread",
    f"-I{CSRC}",
    f"-I{HERE / 'c'}",
]
COMPILE_SECONDS = 120
RUN_SECONDS = 60


def run(command: list[str], seconds: float, folder: Path) -> None:
    """Run `command` in `folder`; its output is the failure's message."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"UBSAN_OPTIONS": "print_stacktrace=1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        ended, output = f"was still running after {seconds} s", exc.stdout or b""
    else:
        if done.returncode == 0:
            return
        ended, output = f"returned {done.returncode}", done.stdout
    pytest.fail(f"{command[0]} {ended}:\n{output.decode(errors='replace')}", pytrace=False)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The object files of the core, compiled once for all programs."""
    folder = tmp_path_factory.mktemp("core")
    sources = sorted(CSRC.glob("*.c"))
    run(["cc", *FLAGS, "-c", *map(str, sources)], COMPILE_SECONDS, folder)
    return [str(folder / f"{source.stem}.o") for source in sources]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_c_program(program: Path, core: list[str], tmp_path: Path) -> None:
    binary = str(tmp_path / program.stem)
    run(["cc", *FLAGS, str(program), *core, "-o", binary], COMPILE_SECONDS, tmp_path)
    run([binary], RUN_SECONDS, tmp_path)


def test_the_programs_are_found() -> None:
    """An empty list would pass."""
    assert {"test_calls", "test_poller"} <= {path.stem for path in PROGRAMS}

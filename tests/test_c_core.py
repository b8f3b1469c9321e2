"""The C core alone, under AddressSanitizer and UndefinedBehaviorSanitizer.

Every `c/test_*.c` is a program; it is linked with all of `gevffi/sys/csrc`, run, and must return 0.
There is no Python in it, so nothing that a sanitizer sees comes from anywhere else. The core is
made of the files that the extension would be built from, here and with these environment variables.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gevffi._build_config import CSRC, POLLERS, configure

HERE = Path(__file__).parent
CONFIG = configure()
OTHERS = [f"test_poller_{poller}" for poller in POLLERS if poller != CONFIG.poller]
PROGRAMS = [path for path in sorted((HERE / "c").glob("test_*.c")) if path.stem not in OTHERS]
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
    *(f"-I{folder}" for folder in CONFIG.include_dirs),
    *(f"-D{name}" for name, _ in CONFIG.define_macros),
]
LIBRARIES = [
    *(f"-L{folder}" for folder in CONFIG.library_dirs),
    *(f"-Wl,-rpath,{folder}" for folder in CONFIG.library_dirs),
    *(f"-l{library}" for library in CONFIG.libraries),
]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the C programs put functions in front of Linux's"
)
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
    run(["cc", *FLAGS, "-c", *map(str, CONFIG.sources)], COMPILE_SECONDS, folder)
    return [str(folder / f"{source.stem}.o") for source in CONFIG.sources]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_c_program(program: Path, core: list[str], tmp_path: Path) -> None:
    binary = str(tmp_path / program.stem)
    command = ["cc", *FLAGS, str(program), *core, *LIBRARIES, "-o", binary]
    run(command, COMPILE_SECONDS, tmp_path)
    run([binary], RUN_SECONDS, tmp_path)


def test_the_programs_are_found() -> None:
    """An empty list would pass."""
    assert {"test_calls", f"test_poller_{CONFIG.poller}"} <= {path.stem for path in PROGRAMS}

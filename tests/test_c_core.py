"""The C core alone, under AddressSanitizer and UndefinedBehaviorSanitizer.

Every `c/test_*.c` is a program; it is linked with all of `gevffi/sys/csrc`, run, and must return 0.
There is no Python in it, so nothing that a sanitizer sees comes from anywhere else. The core is
made of the files that the extension would be built from, here and with these environment variables.

The compiler is most of the time it takes, so it runs ahead of the programs, once for each core of
the machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from gevffi._build_config import CSRC, POLLERS, configure

HERE = Path(__file__).parent
CONFIG = configure()
OTHERS = [f"test_poller_{poller}" for poller in POLLERS if poller != CONFIG.poller]
PROGRAMS = [path for path in sorted((HERE / "c").glob("test_*.c")) if path.stem not in OTHERS]
FLAGS = [
    "-std=gnu11",
    "-g1",
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
def binaries(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Path, Future[Path]]]:
    """Each program that is going to run; it is there when its compiler has ended, or why it is not.

    The core is compiled once, for all of them.
    """
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    calls = [function.callspec for function in functions if function.function is test_c_program]
    chosen = [call.params["program"] for call in calls]
    folder = tmp_path_factory.mktemp("core")
    objects = [str(folder / f"{source.stem}.o") for source in CONFIG.sources]

    def compile_part(source: Path) -> None:
        run(["cc", *FLAGS, "-c", str(source)], COMPILE_SECONDS, folder)

    def build(program: Path) -> Path:
        binary = folder / program.stem
        command = ["cc", *FLAGS, str(program), *objects, *LIBRARIES, "-o", str(binary)]
        run(command, COMPILE_SECONDS, folder)
        return binary

    with ThreadPoolExecutor(os.cpu_count()) as compilers:
        list(compilers.map(compile_part, map(Path, CONFIG.sources)))
        yield {
            program: compilers.submit(build, program) for program in PROGRAMS if program in chosen
        }
        compilers.shutdown(cancel_futures=True)  # when the tests have been interrupted


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_c_program(program: Path, binaries: dict[Path, Future[Path]], tmp_path: Path) -> None:
    run([str(binaries[program].result())], RUN_SECONDS, tmp_path)


def test_the_programs_are_found() -> None:
    """An empty list would pass."""
    assert {"test_calls", f"test_poller_{CONFIG.poller}"} <= {path.stem for path in PROGRAMS}

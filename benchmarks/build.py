"""Compiles the C programs: the load generator and the C floors, of echo and of broadcast.

All are small enough to be built in a second or two, so they are built where they run rather
than shipped, and again only when a source is newer than the program.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.errors import BenchmarkError

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")
PEERS = HERE / "peers"
SOURCES = {
    "echoload": sorted((HERE / "load").glob("*.[ch]")),
    "c_epoll_echo": [PEERS / "c_epoll_echo.c", PEERS / "c_epoll.h"],
    "c_epoll_broadcast": [PEERS / "c_epoll_broadcast.c", PEERS / "c_epoll.h"],
}


def program(name: str) -> Path:
    """Where the program `name` is once it has been built."""
    return BUILD / name


def build(name: str, folder: Path = BUILD, flags: tuple[str, ...] = ()) -> Path:
    """Compile the program `name` into `folder`, if it is missing or older than a source.

    Args:
        name: a key of `SOURCES`.
        folder: where the program goes; made if it is not there.
        flags: what the compiler gets on top of `FLAGS`.

    Raises:
        BenchmarkError: there is no C compiler, or it refused.
    """
    output = folder / name
    inputs = SOURCES[name]
    if output.exists() and output.stat().st_mtime >= max(p.stat().st_mtime for p in inputs):
        return output
    folder.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    unfinished = output.with_suffix(f".{os.getpid()}")
    sources = [str(p) for p in inputs if p.suffix == ".c"]
    command = [*compiler.split(), *FLAGS, *flags, "-o", str(unfinished), *sources]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise BenchmarkError(
            f"the benchmarks need a C compiler and found no {compiler!r} "
            "(on Debian: apt-get install gcc libc6-dev)"
        ) from None
    if result.returncode != 0:
        raise BenchmarkError(f"cannot compile {name}:\n{result.stderr.strip()}")
    unfinished.replace(output)
    return output

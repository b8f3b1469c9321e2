"""Which files and libraries the extension is built from: chosen by the system, or by who builds.

Two things exist in two versions, one file each: the poller, and where rings have their pages from.
The system decides, unless one of these environment variables does, all of which are for testing on
Linux what other systems run:

    GEVFFI_POLLER=kqueue       the kqueue poller, over libkqueue
    GEVFFI_KQUEUE_PREFIX=DIR   where that is installed: DIR/include/kqueue/sys/event.h, DIR/lib
    GEVFFI_PORTABLE=1          nothing that only Linux has, where there is another way

The build and the tests of the C core both read this.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).parent / "sys" / "csrc"
POLLERS = ("epoll", "kqueue")

# Of sys/event.h; their numbers differ between systems, so cffi asks the compiler.
KQUEUE_NAMES = (
    *("EVFILT_READ", "EVFILT_WRITE", "EVFILT_USER", "EVFILT_TIMER", "EVFILT_SIGNAL"),
    *("EV_ADD", "EV_DELETE", "EV_ENABLE", "EV_DISABLE", "EV_ONESHOT", "EV_CLEAR", "EV_RECEIPT"),
    *("EV_DISPATCH", "EV_EOF", "EV_ERROR", "NOTE_TRIGGER"),
)
SOCKET_NAMES = ("SOCK_CLOEXEC", "SOCK_NONBLOCK")


class Config(NamedTuple):
    """What the compiler and cffi have to be told."""

    poller: str
    sources: list[Path]
    headers: list[str]
    """To include, in front of the names."""
    parts: list[str]
    """Of gevffi.h: the words of the cdef marks."""
    names: list[str]
    """Constants of the system's headers."""
    define_macros: list[tuple[str, str | None]]
    include_dirs: list[str]
    library_dirs: list[str]
    libraries: list[str]


def configure(environ: Mapping[str, str] = os.environ) -> Config:
    """Choose, or raise `SystemExit` with one sentence about what is wrong."""
    linux = sys.platform == "linux"
    portable = bool(environ.get("GEVFFI_PORTABLE")) or not linux
    poller = environ.get("GEVFFI_POLLER") or ("epoll" if linux else "kqueue")
    if poller not in POLLERS or (poller == "epoll" and not linux):
        raise SystemExit(
            f"GEVFFI_POLLER must be {'epoll or kqueue' if linux else 'kqueue'}, not {poller!r}"
        )
    unwanted = {f"poller_{other}" for other in POLLERS if other != poller}
    unwanted.add("memory_linux" if portable else "memory_posix")
    if not linux:
        unwanted.add("linux_calls")
    if poller != "kqueue":
        unwanted.add("kqueue_calls")
    prefix = _kqueue_prefix(environ) if linux and poller == "kqueue" else None
    return Config(
        poller=poller,
        sources=[path for path in sorted(CSRC.glob("*.c")) if path.stem not in unwanted],
        headers=["compat.h", "gevffi.h", *(["sys/event.h"] if poller == "kqueue" else [])],
        parts=["", *(["linux"] if linux else []), *(["kqueue"] if poller == "kqueue" else [])],
        names=[*SOCKET_NAMES, *(KQUEUE_NAMES if poller == "kqueue" else ())],
        define_macros=[("GEV_PORTABLE", None)] if portable and linux else [],
        include_dirs=[str(prefix / "include" / "kqueue")] if prefix else [],
        library_dirs=[_library_dir(prefix)] if prefix else [],
        libraries=["kqueue"] if prefix else [],
    )


def declarations(header: str, parts: list[str]) -> str:
    """Return what cffi is to see of `header`: the parts between marks with these words."""
    found = []
    for part in parts:
        word = f" {part}" if part else ""
        begin, end = f"/* cdef begin{word} */", f"/* cdef end{word} */"
        found.append(header.split(begin, 1)[1].split(end, 1)[0])
    return "".join(found)


def _kqueue_prefix(environ: Mapping[str, str]) -> Path:
    name = environ.get("GEVFFI_KQUEUE_PREFIX")
    if not name:
        raise SystemExit(
            "GEVFFI_POLLER=kqueue on Linux needs libkqueue: set GEVFFI_KQUEUE_PREFIX to the prefix "
            "it is installed under"
        )
    header = Path(name) / "include" / "kqueue" / "sys" / "event.h"
    if not header.is_file():
        raise SystemExit(f"GEVFFI_KQUEUE_PREFIX={name}: there is no {header}")
    return Path(name).absolute()


def _library_dir(prefix: Path) -> str:
    for pattern in ("lib*/libkqueue.so", "lib/*/libkqueue.so"):
        for library in sorted(prefix.glob(pattern)):
            return str(library.parent)
    raise SystemExit(f"GEVFFI_KQUEUE_PREFIX={prefix}: there is no libkqueue.so under its lib")

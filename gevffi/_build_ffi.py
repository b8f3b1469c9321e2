"""Builds `gevffi._ffi`, the out-of-line API-mode extension, from the C files in `sys/csrc`.

The declarations that cffi needs are cut out of `gevffi.h`, between its two `cdef` marks, so that
each is written once and the C compiler checks it against the code.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).parent / "sys" / "csrc"
SOURCES = sorted(path for path in CSRC.glob("*.c"))
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fno-strict-aliasing"]


def declarations(header: str) -> str:
    """Return the part of `header` that cffi is to see."""
    return header.split("/* cdef begin */", 1)[1].split("/* cdef end */", 1)[0]


def relative(path: Path) -> str:
    """Return `path` as setuptools wants it: relative to the project's folder."""
    return str(path.relative_to(CSRC.parents[2]))


ffibuilder = FFI()
ffibuilder.cdef(declarations((CSRC / "gevffi.h").read_text()))
ffibuilder.set_source(
    "gevffi._ffi",
    '#include "gevffi.h"',
    sources=[relative(path) for path in SOURCES],
    depends=[relative(path) for path in sorted(CSRC.glob("*.h"))],
    include_dirs=[relative(CSRC)],
    extra_compile_args=FLAGS,
    libraries=[],
)

if __name__ == "__main__":
    ffibuilder.compile(tmpdir=str(CSRC.parents[2]), verbose=True)

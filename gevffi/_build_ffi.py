"""Builds `gevffi._ffi`, the out-of-line API-mode extension, from the C files in `sys/csrc`.

The declarations that cffi needs are cut out of `gevffi.h`, between its `cdef` marks, so that each
is written once and the C compiler checks it against the code. `_build_config.py` says which of
them, and which files.
"""

from __future__ import annotations

import runpy
from pathlib import Path

from cffi import FFI

# Run and not imported: gevffi itself cannot be imported before it is built.
_config = runpy.run_path(str(Path(__file__).with_name("_build_config.py")))
CSRC: Path = _config["CSRC"]
CONFIG = _config["configure"]()
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fno-strict-aliasing"]


def relative(path: Path) -> str:
    """Return `path` as setuptools wants it: relative to the project's folder."""
    return str(path.relative_to(CSRC.parents[2]))


ffibuilder = FFI()
ffibuilder.cdef(_config["declarations"]((CSRC / "gevffi.h").read_text(), CONFIG.parts))
ffibuilder.cdef("".join(f"#define {name} ...\n" for name in CONFIG.names))
ffibuilder.set_source(
    "gevffi._ffi",
    # The file names, so that another choice of files makes another _ffi.c, and is built anew.
    f"/* with {' '.join(path.stem for path in CONFIG.sources)} */\n"
    + "".join(f'#include "{header}"\n' for header in CONFIG.headers),
    sources=[relative(path) for path in CONFIG.sources],
    depends=[relative(path) for path in sorted(CSRC.glob("*.h"))],
    include_dirs=[relative(CSRC), *CONFIG.include_dirs],
    define_macros=CONFIG.define_macros,
    library_dirs=CONFIG.library_dirs,
    runtime_library_dirs=CONFIG.library_dirs,
    libraries=CONFIG.libraries,
    extra_compile_args=FLAGS,
)

if __name__ == "__main__":
    ffibuilder.compile(tmpdir=str(CSRC.parents[2]), verbose=True)

"""How the tests build the C programs of the benchmarks: strictly, and with sanitizers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import build

STRICT = ("-g", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
"""What the compiler gets besides."""


def build_all(folder: Path) -> dict[str, Path]:
    """Build all of them, at once, into `folder`; where each is."""
    with ThreadPoolExecutor() as compilers:
        built = compilers.map(lambda name: build.build(name, folder, STRICT), build.SOURCES)
        return dict(zip(build.SOURCES, built, strict=True))

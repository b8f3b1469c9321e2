"""The build: what it says when something is missing, and what cffi gets to see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import gevffi
from gevffi._ffi import lib
from gevffi.connection_info import CloseReason

ROOT = Path(__file__).parent.parent


def test_a_missing_compiler_is_one_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "CC": "/nonexistent/cc"}
    built = subprocess.run(
        [
            *(sys.executable, "setup.py", "-q", "build_ext", "--force"),
            *("--build-temp", str(tmp_path / "temp"), "--build-lib", str(tmp_path / "lib")),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert built.returncode != 0
    assert "Traceback" not in built.stderr
    last = built.stderr.strip().splitlines()[-1]
    assert last.startswith("gevffi needs a C11 compiler and the Python headers")


def test_close_reasons_have_the_numbers_of_the_c_core() -> None:
    for reason in CloseReason:
        assert getattr(lib, f"GEV_REASON_{reason.name}") == reason.value


def test_every_public_name_is_there_and_documented() -> None:
    for name in gevffi.__all__:
        assert getattr(gevffi, name).__doc__, name

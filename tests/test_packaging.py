"""The build: what it says when something is missing, and what cffi gets to see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

from elsewhere import UNNEEDED

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


def test_what_is_distributed_is_complete(tmp_path: Path) -> None:
    """A wheel made of the unpacked sdist, and of nothing else, is imported and serves."""
    tree, unpacked, installed = tmp_path / "tree", tmp_path / "unpacked", tmp_path / "installed"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*UNNEEDED))

    def make(what: str, folder: Path) -> Path:
        command = [sys.executable, "setup.py", "-q", what, "--dist-dir", str(tmp_path)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
        (made,) = tmp_path.glob("*.tar.gz" if what == "sdist" else "*.whl")
        return made

    with tarfile.open(make("sdist", tree)) as sdist:
        sdist.extractall(unpacked, filter="data")
    (folder,) = unpacked.iterdir()
    for name in ("README.md", "LICENSE", "Makefile", "tests/conftest.py", "docs/guide.md"):
        assert (folder / name).exists(), name
    with zipfile.ZipFile(make("bdist_wheel", folder)) as wheel:
        wheel.extractall(installed)
    assert (installed / "gevffi" / "py.typed").exists()
    serves = (
        f"import sys; sys.path[:0] = [{str(installed)!r}, {sysconfig.get_path('purelib')!r}];"
        "import gevffi, gevffi.ws, gevffi.protobuf, gevffi.ringbuf;"
        "server = gevffi.Server(gevffi.Handler(), '127.0.0.1:0');"
        "server.run_after(0, server.stop); server.start(); print(gevffi.__file__)"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-c", serves],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.stderr == ""
    assert said.stdout.strip() == str(installed / "gevffi" / "__init__.py")


def test_close_reasons_have_the_numbers_of_the_c_core() -> None:
    for reason in CloseReason:
        assert getattr(lib, f"GEV_REASON_{reason.name}") == reason.value


def test_every_public_name_is_there_and_documented() -> None:
    for name in gevffi.__all__:
        assert getattr(gevffi, name).__doc__, name

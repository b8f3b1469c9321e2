"""What the extension is built from, for each way to choose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gevffi._build_config import CSRC, Config, configure, declarations

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is one choice")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Where a libkqueue might be installed."""
    for name in ("include/kqueue/sys/event.h", "lib/x86_64-linux-gnu/libkqueue.so"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    return tmp_path


def files(config: Config) -> set[str]:
    return {path.name for path in config.sources}


BOTH = {"conn.c", "reactor.c", "pool.c", "ring.c", "calls.c", "linux_calls.c"}


def test_linux_has_epoll_by_default() -> None:
    config = configure({})
    assert config.poller == "epoll"
    assert BOTH | {"poller_epoll.c", "memory_linux.c"} <= files(config)
    assert not files(config) & {"poller_kqueue.c", "kqueue_calls.c", "memory_posix.c"}
    assert (config.libraries, config.define_macros) == ([], [])


def test_kqueue_on_linux_is_libkqueue(prefix: Path) -> None:
    config = configure({"GEVFFI_POLLER": "kqueue", "GEVFFI_KQUEUE_PREFIX": str(prefix)})
    assert config.poller == "kqueue"
    assert BOTH | {"poller_kqueue.c", "kqueue_calls.c", "memory_linux.c"} <= files(config)
    assert not files(config) & {"poller_epoll.c", "memory_posix.c"}
    assert config.include_dirs == [str(prefix / "include/kqueue")]
    assert config.library_dirs == [str(prefix / "lib/x86_64-linux-gnu")]
    assert config.libraries == ["kqueue"]


def test_portable_takes_the_other_branches() -> None:
    config = configure({"GEVFFI_PORTABLE": "1"})
    assert "memory_posix.c" in files(config)
    assert "memory_linux.c" not in files(config)
    assert config.define_macros == [("GEV_PORTABLE", None)]


def test_every_file_is_in_some_build(prefix: Path) -> None:
    environments = [
        {},
        {"GEVFFI_PORTABLE": "1", "GEVFFI_POLLER": "kqueue", "GEVFFI_KQUEUE_PREFIX": str(prefix)},
    ]
    built = set().union(*(files(configure(environment)) for environment in environments))
    assert built == {path.name for path in CSRC.glob("*.c")}


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"GEVFFI_POLLER": "poll"}, "GEVFFI_POLLER must be epoll or kqueue, not 'poll'"),
        ({"GEVFFI_POLLER": "kqueue"}, "set GEVFFI_KQUEUE_PREFIX"),
        ({"GEVFFI_POLLER": "kqueue", "GEVFFI_KQUEUE_PREFIX": "/nowhere"}, "there is no /nowhere/"),
    ],
)
def test_what_is_wrong_is_one_sentence(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(SystemExit, match=sentence):
        configure(environment)


def test_a_prefix_without_the_library_is_one_sentence(prefix: Path) -> None:
    (prefix / "lib/x86_64-linux-gnu/libkqueue.so").unlink()
    with pytest.raises(SystemExit, match=r"there is no libkqueue\.so under its lib"):
        configure({"GEVFFI_POLLER": "kqueue", "GEVFFI_KQUEUE_PREFIX": str(prefix)})


def test_cffi_sees_the_parts_it_is_told() -> None:
    header = (CSRC / "gevffi.h").read_text()
    assert "gev_epoll_create" not in declarations(header, [""])
    assert "gev_epoll_create" in declarations(header, ["", "linux"])
    assert "gev_kevent" not in declarations(header, ["", "linux"])
    assert "gev_loop_poll" in declarations(header, ["", "kqueue"])

"""Fixtures of more than one file of tests, and what makes `gc.collect()` cheap in all of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import strict_builds
from hypothesis import settings
from outgoing import looping
from ws_peer import Listener, listening

from gevffi import EventLoop

# An example may take as long as it does: on a busy machine one waits for its core, and would fail
# for that, and pass when it is tried again. All else is as in the profile there was.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_finish() -> None:
    """Have the garbage collector leave alone what has been imported so far.

    Many tests collect before and after, to see that nothing is left. Of the million objects that
    each would look through nearly all belong to modules, pytest and hypothesis, and will never
    be garbage; what a test makes comes later, and is looked at.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with looping() as loop:
        yield loop


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The C programs of the benchmarks, built strictly and with sanitizers."""
    return strict_builds.build_all(tmp_path_factory.mktemp("programs"))

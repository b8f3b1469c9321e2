"""Fixtures of more than one file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from outgoing import looping
from ws_peer import Listener, listening

from gevffi import EventLoop


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with looping() as loop:
        yield loop


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener

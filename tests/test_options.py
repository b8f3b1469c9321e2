"""Options: every range, every wrong value and type, by name."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import pytest

from gevffi import Delimited, Handler, Options, Server, ws
from gevffi._ws_server import ServerArgs
from gevffi.options import OptionArgs

KIB = 1024
GIB = 1 << 30

# name: lowest and highest value allowed, and values that are not
RANGES: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "loops": (1, 1024, (0, -1, 1025)),
    "backlog": (1, (1 << 31) - 1, (0, -5, 1 << 31)),
    "max_connections": (0, (1 << 31) - 1, (-1, 1 << 31)),
    "keepalive": (0, 32767, (-1, 32768, math.nan)),
    "keepalive_interval": (1, 32767, (0, 0.5, 32768, math.inf)),
    "keepalive_count": (1, 127, (0, 128)),
    "idle_time": (0, 1e9, (-0.1, 2e9, math.nan, math.inf)),
    "first_byte_timeout": (0, 1e9, (-0.1, 2e9, math.nan, math.inf)),
    "close_timeout": (0, 1e6, (-1, 2e6, math.nan, math.inf)),
    "write_high_water": (1, 16 * KIB * KIB, (0, -1, 16 * KIB * KIB + 1)),
    "write_limit": (64 * KIB, GIB, (0, -1, GIB + 1)),
    "frame_limit": (1, GIB, (0, -1, GIB + 1)),
    "read_budget": (1, GIB, (0, -1, GIB + 1)),
    "max_events": (1, 65536, (0, -1, 65537)),
    "arena_size": (128 * KIB, GIB, (0, 64 * KIB, 2 * GIB, 3 * 128 * KIB, 128 * KIB + 1)),
    "max_leases": (0, 65536, (-1, 65537)),
}
FLAGS = ("reuse_port", "tcp_nodelay")
FLOATS = ("keepalive", "keepalive_interval", "idle_time", "first_byte_timeout", "close_timeout")

WRONG_VALUES = [(name, value) for name, (_, _, wrong) in RANGES.items() for value in wrong]
WRONG_TYPES: list[tuple[str, Any]] = [
    *((name, value) for name in RANGES for value in ("1", None, True, b"1", [1])),
    *((name, 1.0) for name in RANGES if name not in FLOATS),
    *((name, value) for name in FLAGS for value in (1, 0, "yes", None)),
]


def test_every_option_is_looked_at_here() -> None:
    assert {field.name for field in dataclasses.fields(Options)} == {*RANGES, *FLAGS}


def test_type_checkers_know_every_option() -> None:
    wanted = {field.name: field.type for field in dataclasses.fields(Options)}
    assert {name: ref.__forward_arg__ for name, ref in OptionArgs.__annotations__.items()} == wanted
    ours = inspect.signature(ws.Protocol).parameters
    wanted |= {name: parameter.annotation for name, parameter in ours.items()}
    wanted["metrics_address"] = inspect.signature(Server).parameters["metrics_address"].annotation
    found = {name: ref.__forward_arg__ for name, ref in ServerArgs.__annotations__.items()}
    assert found == wanted


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_the_range_are_allowed(name: str) -> None:
    low, high, _ = RANGES[name]
    assert getattr(Options(**{name: low}), name) == low  # type: ignore[arg-type]
    assert getattr(Options(**{name: high}), name) == high  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), WRONG_VALUES)
def test_a_wrong_value_is_refused_with_option_and_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        Options(**{name: value})  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused_with_option_and_value(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name) as caught:
        Options(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", FLOATS)
def test_times_may_be_whole_numbers_or_not(name: str) -> None:
    assert getattr(Options(**{name: 3}), name) == 3  # type: ignore[arg-type]
    assert getattr(Options(**{name: 3.5}), name) == 3.5  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name: str) -> None:
    assert getattr(Options(**{name: True}), name) is True
    assert getattr(Options(**{name: False}), name) is False


def test_the_high_water_may_be_the_limit_but_not_above() -> None:
    assert Options(write_high_water=1, write_limit=1).write_limit == 1
    with pytest.raises(
        ValueError, match=r"write_high_water \(70001\) must not be over write_limit \(70000\)"
    ):
        Options(write_high_water=70001, write_limit=70000)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match="num_loops"):
        Options(num_loops=2)  # type: ignore[call-arg]


def test_options_are_keywords_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        Options(2)  # type: ignore[call-arg]


def test_options_do_not_change() -> None:
    options = Options()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.loops = 2  # type: ignore[misc]


def test_the_documented_defaults() -> None:
    options = Options()
    assert (options.loops, options.reuse_port, options.tcp_nodelay) == (1, False, True)
    assert (options.keepalive, options.idle_time, options.close_timeout) == (0, 0, 5)
    assert (options.max_connections, options.first_byte_timeout) == (0, 0)
    assert options.write_high_water == 64 * KIB
    assert options.write_limit == 16 * KIB * KIB
    assert options.read_budget == 256 * KIB
    assert options.arena_size == KIB * KIB


@pytest.mark.parametrize("handler", [Handler, None, ws.Handler()])
def test_what_is_no_handler_is_refused_at_once(handler: Any) -> None:
    """Not when the first connection comes: the class instead of an object is easily written."""
    with pytest.raises(TypeError, match=r"handler must be a gevffi\.Handler"):
        Server(handler, "127.0.0.1:0")


@pytest.mark.parametrize("protocol", [Delimited, 0, "lines"])
def test_what_is_no_protocol_is_refused_at_once(protocol: Any) -> None:
    with pytest.raises(TypeError, match=r"protocol must be a gevffi\.Protocol"):
        Server(Handler(), "127.0.0.1:0", protocol=protocol)


def test_a_server_takes_them_and_refuses_them_alike() -> None:
    server = Server(Handler(), "127.0.0.1:0", loops=3, idle_time=1.5)
    assert server.options == Options(loops=3, idle_time=1.5)
    with pytest.raises(ValueError, match=r"loops.*-2"):
        Server(Handler(), "127.0.0.1:0", loops=-2)
    with pytest.raises(TypeError, match="loops"):
        Server(Handler(), "127.0.0.1:0", loops="two")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="lops"):
        Server(Handler(), "127.0.0.1:0", lops=2)  # type: ignore[call-arg]

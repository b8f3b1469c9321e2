"""Addresses as users write them, good and bad."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gevffi import Address, Handler, Server, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("a-host.example:65535", ("a-host.example", 65535)),
        ("[::1]:80", ("::1", 80)),
        ("[fe80::1%lo]:80", ("fe80::1%lo", 80)),
        (":80", ("", 80)),
        (("127.0.0.1", 80), ("127.0.0.1", 80)),
        (("", 0), ("", 0)),
        (("::1", 65535), ("::1", 65535)),
        ("unix:/run/a.sock", ("/run/a.sock", None)),
        ("unix:relative", ("relative", None)),
        ("unix:/run/with:colon", ("/run/with:colon", None)),
        ("unix:@name", ("\0name", None)),
        (Address("127.0.0.1", 80), ("127.0.0.1", 80)),
        (Address("/run/a.sock", None), ("/run/a.sock", None)),
    ],
)
def test_addresses(text: Any, address: tuple[str, int | None]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["127.0.0.1:80", "[::1]:80", "unix:/run/a.sock", "unix:@name"], ids=str
)
def test_an_address_reads_as_it_was_written(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "80",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:65536",
        "localhost:-1",
        "localhost:+1",
        "localhost: 1",
        "localhost:1_0",
        "localhost:100000000000000000000",
        "localhost:\u0661",
        "::1:80",
        "::1",
        "[::1]",
        "[::1:80",
        "::1]:80",
        "tcp://localhost:80",
        "[]:80",
        "[localhost]:80",
        "[127.0.0.1]:80",
        " x y:80",
        "x y:80",
        " localhost:80",
        "localhost :80",
        " :80",
        "local\thost:80",
        "localhost\n:80",
        "local\0host:80",
        "[::1 ]:80",
        "local\u00a0host:80",
        (" localhost", 80),
        ("local\0host", 80),
        "unix:",
        "unix:/run/a\0b",
        ("localhost",),
        ("localhost", "80"),
        ("localhost", 80.0),
        ("localhost", True),
        ("localhost", -1),
        ("localhost", 65536),
        ("", None),
        (None, 80),
        (b"localhost", 80),
        ("::1", 80, 0, 0),
        (),
        ["localhost", 80],
        b"localhost:80",
        80,
        None,
    ],
    ids=repr,
)
def test_a_wrong_address_is_refused_and_shown(wrong: Any) -> None:
    with pytest.raises(ValueError, match="address must be") as caught:
        parse_address(wrong)
    assert repr(wrong) in str(caught.value)
    with pytest.raises(ValueError, match="address must be"):
        Server(Handler(), wrong)


@given(st.one_of(st.text(), st.text(alphabet="[]:%a1 .\t@/", max_size=12).map("{}:80".format)))
def test_whatever_it_takes_reads_back_the_same(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
    assert parse_address(tuple(address)) == address  # type: ignore[arg-type]

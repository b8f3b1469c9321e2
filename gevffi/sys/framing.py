"""Descriptions of framings, as C wants them."""

from __future__ import annotations

import weakref
from typing import Any, NewType

from gevffi._ffi import ffi, lib
from gevffi.sys.errors import check

Description = NewType("Description", object)
"""A `gev_framing *`."""

LENGTH_PREFIXED: int = lib.GEV_LENGTH_PREFIXED
DELIMITED: int = lib.GEV_DELIMITED
FIXED_SIZE: int = lib.GEV_FIXED_SIZE
WEBSOCKET: int = lib.GEV_WEBSOCKET


def describe(**fields: Any) -> Description:
    """Return the description with these fields, the rest 0; see `gev_framing`.

    Raises:
        OSError: EINVAL: it cannot be meant.
    """
    description = ffi.new("gev_framing *", fields)
    check(lib.gev_framing_check(description), "gev_framing_check")
    return Description(description)


def dress(description: Description, data: Any) -> bytes:
    """Return `data`, bytes-like, as a whole frame: with what C adds to each piece that is sent."""
    payload = memoryview(data).tobytes()
    room = ffi.new("uint8_t[]", lib.GEV_DRESS_ROOM)
    header = ffi.buffer(room, lib.gev_framing_header(description, len(payload), room))[:]
    trailer = ffi.buffer(room, lib.gev_framing_trailer(description, room))[:]
    return b"".join((header, payload, trailer))


class Numbers:
    """What a C loop knows framings by, found once for each description. Belongs to its thread.

    Not for each protocol: that may define `==`, or not be hashable.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._known: weakref.WeakKeyDictionary[Description, int] = weakref.WeakKeyDictionary()

    def of(self, description: Description | None) -> int:
        """The number of a framing, 0 if there is none.

        Raises:
            OSError: ENOSPC: 65535 different ones have been asked for.
        """
        if description is None:
            return 0
        number = self._known.get(description)
        if number is None:
            number = check(lib.gev_loop_framing(self._loop, description), "gev_loop_framing")
            self._known[description] = number
        return number

"""Formats for arrays of integers: many are packed, or unpacked, in one call.

A turn seldom has many numbers. The formats for few are made once; beside packing many, making one
does not show.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

_FEW = 256


def formats(code: str) -> Callable[[int], Struct]:
    """Return what gives the format of so many integers of one kind, a `struct` code."""
    few = [Struct(f"{count}{code}") for count in range(_FEW)]

    def of(count: int) -> Struct:
        return few[count] if count < _FEW else Struct(f"{count}{code}")

    return of


int32s = formats("i")
int64s = formats("l" if Struct("l").size == 8 else "q")  # the same, and "l" takes fewer steps

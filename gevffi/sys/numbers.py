"""Formats for arrays of integers: many are packed, or unpacked, in one call.

A turn seldom has many numbers. The formats for few are made once; beside packing many, making one
does not show. Where a step more would show, the methods of those for few are in lists, by count.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

FEW = 256
"""What the lists have methods for: as many numbers, or triples, as are less than this."""

_INT64 = "l" if Struct("l").size == 8 else "q"  # the same, and "l" takes fewer steps


def _formats(code: str) -> Callable[[int], Struct]:
    """Return what gives the format of so many integers of one kind, a `struct` code."""
    few = [Struct(f"{count}{code}") for count in range(FEW)]

    def of(count: int) -> Struct:
        return few[count] if count < FEW else Struct(f"{count}{code}")

    return of


int32s = _formats("i")
int64s = _formats(_INT64)

pack_few_int64s: list[Callable[..., bytes]] = [int64s(count).pack for count in range(FEW)]
unpack_few_triples: list[Callable[[Any], tuple[int, ...]]] = [
    Struct(f"{3 * count}i").unpack_from for count in range(FEW)
]
"""32-bit ones, three of each, in one row."""

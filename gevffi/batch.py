"""All frames of one read, for handlers that want them at once.

    data     |....|== frame 0 ==|..|== frame 1 ==|..|== frame 2 ==|........|
    starts         ^               ^                ^
    ends                        ^                ^                ^
    span          |===============================================|

A handler with an `on_batch` gets a `Batch` instead of one call a frame. With NumPy it can look at
all frames without a Python step for each: `starts` and `ends` are arrays, and where frames have one
size and nothing between them (`FixedSize`), `np.frombuffer(batch.span, dtype)` is all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload


class Batch(Sequence[memoryview]):
    """The frames of one read of a connection, a sequence of read-only views.

    Stays valid, and its bytes unchanged, for as long as it or anything made of it is kept.
    """

    __slots__ = ("data", "ends", "starts")

    def __init__(self, data: memoryview, starts: memoryview, ends: memoryview) -> None:
        self.data = data
        """Read-only bytes that hold all frames, among others."""
        self.starts = starts
        """Where in `data` each frame starts: a view of 32-bit integers, an array to NumPy."""
        self.ends = ends
        """Where each ends."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} frames>"

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, i: int) -> memoryview: ...
    @overload
    def __getitem__(self, i: slice) -> Batch: ...
    def __getitem__(self, i: int | slice) -> memoryview | Batch:
        if isinstance(i, slice):
            return Batch(self.data, self.starts[i], self.ends[i])
        return self.data[self.starts[i] : self.ends[i]]

    def __iter__(self) -> Iterator[memoryview]:
        data = self.data
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield data[start:end]

    @property
    def span(self) -> memoryview:
        """Everything from the first frame's start to the last one's end.

        Raises:
            IndexError: there is no frame in it, as in an empty slice of a batch.
        """
        return self.data[self.starts[0] : self.ends[-1]]

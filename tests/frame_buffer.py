"""Frames cut one by one, without a loop: what tests of messages stand on."""

from __future__ import annotations

from collections.abc import Iterator

from gevffi._ws_frames import REASONS, FrameError, Payload
from gevffi.sys.websocket import Cutter


class FrameBuffer:
    """Cuts frames out of a stream, in a buffer of its own.

    Args:
        from_client, deflate, max_message_size: as for `gevffi.sys.websocket.Cutter`.
    """

    __slots__ = ("_cutter", "_kept")

    def __init__(self, *, from_client: bool, deflate: bool, max_message_size: int) -> None:
        self._cutter = Cutter(
            from_client=from_client, deflate=deflate, max_message_size=max_message_size
        )
        self._kept = bytearray()  # an unfinished frame, as the cutter left it

    def feed(self, data: Payload) -> Iterator[tuple[int, memoryview]]:
        """Take what has come; return the frames that are complete with it, one by one.

        Each is a tag (FIN | RSV1 | opcode) and a payload, read-only, which may be kept. All must
        be taken before the next `feed`.

        Raises:
            FrameError: while iterating, after the frames before the bad one.
        """
        kept = self._kept
        kept += data
        view = memoryview(kept).toreadonly()
        start = length = 0
        while start < len(kept):
            length, tag, begin, end = self._cutter.cut(kept, start)
            if length <= 0:
                break
            yield tag, view[begin:end]
            start += length
        if length < 0:
            raise FrameError(-length, REASONS[-length])
        if start:  # others may be looking at what there was
            self._kept = kept[start:]

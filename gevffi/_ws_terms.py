"""What either side of a WebSocket can be told of it, with the checks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gevffi._ws_deflate import Deflate
from gevffi.sys.websocket import MOST


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How connections are kept. Times are seconds, sizes bytes.

    Raises:
        ValueError: an option that cannot be meant; the message names it.
    """

    compression: Deflate | None
    max_message_size: int
    ping_interval: float
    ping_timeout: float
    handshake_timeout: float
    text: str

    def __post_init__(self) -> None:
        if self.compression is not None and not isinstance(self.compression, Deflate):
            raise ValueError(f"compression must be a Deflate or None, not {self.compression!r}")
        if self.text not in ("str", "bytes"):
            raise ValueError(f"text must be 'str' or 'bytes', not {self.text!r}")
        size = self.max_message_size
        number = isinstance(size, int) and not isinstance(size, bool)
        if not number or not 0 <= size <= MOST:
            raise ValueError(f"max_message_size must be 0 to {MOST}, not {size!r}")
        for name, least in (
            ("ping_interval", "0 or more"),
            ("ping_timeout", "more than 0"),
            ("handshake_timeout", "more than 0"),
        ):
            seconds = getattr(self, name)
            number = isinstance(seconds, (int, float)) and math.isfinite(seconds)
            if not number or seconds < 0 or (seconds == 0 and "than" in least):
                raise ValueError(f"{name} must be {least}, not {seconds!r}")

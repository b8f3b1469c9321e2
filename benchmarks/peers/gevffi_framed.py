"""gevffi with frames cut in C: a message as a view, as bytes, or all of a read as one batch.

view    LengthPrefixed(), one `on_message` a frame
bytes   the same with deliver="bytes"
copy    the same, answered with other bytes than it was given, so that nothing goes back as it came
batch   FixedSize(64), one `on_batch` a read: the length counts as part of the record
"""

from __future__ import annotations

import sys
from typing import Any

import gevffi


class Echo(gevffi.Handler):
    """Sends back every message."""

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> Any:
        return data


class Copy(gevffi.Handler):
    """Answers every message with a copy of it."""

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> bytes:
        return bytes(data)


class EchoBatches(gevffi.Handler):
    """Sends back all messages of a read at once."""

    def on_batch(self, conn: gevffi.Connection, batch: gevffi.Batch) -> gevffi.Batch:
        return batch


MODES: dict[str, tuple[gevffi.Handler, gevffi.Protocol]] = {
    "view": (Echo(), gevffi.LengthPrefixed()),
    "bytes": (Echo(), gevffi.LengthPrefixed(deliver="bytes")),
    "copy": (Copy(), gevffi.LengthPrefixed()),
    "batch": (EchoBatches(), gevffi.FixedSize(64)),
}

if __name__ == "__main__":
    handler, protocol = MODES[sys.argv[1]]
    server = gevffi.Server(handler, "127.0.0.1:0", protocol=protocol)
    server.run_after(0, lambda: print(f"listening on {server.address}", flush=True))
    server.start()

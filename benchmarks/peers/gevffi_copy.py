"""gevffi, an echo that answers with bytes of its own.

A message that a handler returns as it came leaves from where it was read, which most servers do not
do with what they answer. This one returns a copy: what that shortcut is worth is the difference.
"""

from __future__ import annotations

from typing import Any

import gevffi


class Copy(gevffi.Handler):
    """Answers with other bytes than it was given, though the same ones."""

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> bytes:
        return bytes(data)


if __name__ == "__main__":
    server = gevffi.Server(Copy(), "127.0.0.1:0")
    server.run_after(0, lambda: print(f"listening on {server.address}", flush=True))
    server.start()

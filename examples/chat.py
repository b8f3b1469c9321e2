"""A chat, one line a message: the first is one's name, the others everybody gets.

    python examples/chat.py [ADDRESS]       and in other windows: nc 127.0.0.1 1833

`Delimited` cuts the lines and ends those that are sent. A line over 1000 bytes closes its sender's
connection, and so does unread chat over a megabyte: nobody else notices.
"""

from __future__ import annotations

import sys
from typing import Any

import gevffi


class Chat(gevffi.Handler):
    """Runs on one loop, whose thread `members` belongs to."""

    def __init__(self) -> None:
        self.members: dict[gevffi.Connection, str] = {}

    def on_connect(self, conn: gevffi.Connection) -> None:
        conn.send(b"* your name?")

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: bytes) -> Any:
        text = data.decode(errors="replace").strip()
        name = self.members.get(conn)
        if name is not None:
            self.tell(f"{name}: {text}", but=conn)
            return None
        if not (text.isprintable() and 1 <= len(text) <= 20) or text in self.members.values():
            return b"* another name, please"
        self.tell(f"* {text} is here", but=conn)
        self.members[conn] = text
        return f"* hello, {text}; {len(self.members)} here".encode()

    def on_close(self, conn: gevffi.Connection, reason: gevffi.CloseReason) -> None:
        name = self.members.pop(conn, None)
        if name is not None:
            self.tell(f"* {name} has left", but=conn)

    def tell(self, text: str, but: gevffi.Connection) -> None:
        """Send a line to all members but one."""
        others = [member for member in self.members if member is not but]
        if others:
            but.loop.broadcast(text.encode(), others)


if __name__ == "__main__":
    server = gevffi.Server(
        Chat(),
        sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833",
        protocol=gevffi.Delimited(b"\n", max_size=1000, deliver="bytes"),
        write_limit=1 << 20,
    )
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM drains and stops

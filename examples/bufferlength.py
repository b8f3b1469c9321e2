"""gev's bufferlength demo: push to everybody, but not to those who do not keep up.

    python examples/bufferlength.py [ADDRESS [SECONDS BETWEEN PUSHES]]

`write_buffer_length` says how much a peer has not taken yet. It belongs to the connection's loop;
with one loop the server's timers run there too.
"""

from __future__ import annotations

import sys
from typing import Any

import gevffi

ENOUGH = 10 * 1024  # unsent bytes from which a peer gets nothing new


class Pusher(gevffi.Handler):
    def __init__(self) -> None:
        self.connections: set[gevffi.Connection] = set()

    def on_connect(self, conn: gevffi.Connection) -> None:
        self.connections.add(conn)

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> Any:
        return data

    def on_close(self, conn: gevffi.Connection, reason: gevffi.CloseReason) -> None:
        self.connections.discard(conn)

    def push(self) -> None:
        for conn in self.connections:
            if conn.write_buffer_length > ENOUGH:
                print("too slow:", conn.write_buffer_length, "bytes unsent", flush=True)
            else:
                conn.send(b"hello\n")


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    interval = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    pusher = Pusher()
    server = gevffi.Server(pusher, address)
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.run_every(interval, pusher.push)
    server.start()  # Ctrl-C or SIGTERM drains and stops

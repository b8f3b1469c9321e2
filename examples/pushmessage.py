"""gev's pushmessage demo: every two seconds the server sends a message to all its connections.

Watch it with `nc 127.0.0.1 1833`, in as many windows as you like.
"""

from __future__ import annotations

import sys

import gevffi


class Greeter(gevffi.Handler):
    def on_connect(self, conn: gevffi.Connection) -> None:
        conn.send(b"welcome\n")


def make_server(address: str, interval: float) -> gevffi.Server:
    """A server that pushes a numbered message every `interval` seconds."""
    server = gevffi.Server(Greeter(), address)
    number = 0

    def push() -> None:
        nonlocal number
        number += 1
        server.broadcast(b"message %d to all %d\n" % (number, server.connection_count))

    server.run_every(interval, push)
    return server


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    interval = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    server = make_server(address, interval)
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM drains and stops

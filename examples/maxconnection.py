"""gev's maxconnection demo: a server that takes so many connections and no more."""

from __future__ import annotations

import sys
from typing import Any

import gevffi


class Example(gevffi.Handler):
    def on_connect(self, conn: gevffi.Connection) -> None:
        print("connected:", conn.peer_address, flush=True)

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> Any:
        return data

    def on_close(self, conn: gevffi.Connection, reason: gevffi.CloseReason) -> None:
        print("closed:", reason.name, flush=True)


def report() -> None:
    print("open:", server.connection_count, "refused:", server.refused_count, flush=True)


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    server = gevffi.Server(Example(), address, max_connections=2)
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.run_every(2.0, report)
    server.start()  # Ctrl-C or SIGTERM drains and stops

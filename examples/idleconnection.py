"""gev's idleconnection demo: who is silent for too long is closed.

python examples/idleconnection.py [ADDRESS [SECONDS]]
"""

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
        print("closed:", conn.peer_address, reason.name, flush=True)


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    server = gevffi.Server(Example(), address, idle_time=seconds)
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM drains and stops

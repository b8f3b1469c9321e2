"""gev's echo demo: every message goes back where it came from."""

from __future__ import annotations

import sys
from typing import Any

import gevffi


class Echo(gevffi.Handler):
    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> Any:
        return data


if __name__ == "__main__":
    server = gevffi.Server(Echo(), sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833")
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.run_every(2.0, lambda: print("connections:", server.connection_count, flush=True))
    server.start()  # Ctrl-C or SIGTERM drains and stops

"""gev's echo demo: every message goes back where it came from."""

from __future__ import annotations

from typing import Any

import gevffi


class Echo(gevffi.Handler):
    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> Any:
        return data


if __name__ == "__main__":
    server = gevffi.Server(Echo(), "127.0.0.1:1833")
    server.run_every(2.0, lambda: print("connections:", server.connection_count))
    server.start()  # Ctrl-C or SIGTERM drains and stops

"""A WebSocket echo, with a page to try it on.

    python examples/ws_echo.py [ADDRESS]       and open http://127.0.0.1:9001/

The page sends text and bytes and says how long they took. `python -m gevffi ws-echo` is the same
without the page.
"""

from __future__ import annotations

import sys
from typing import Any

import webpage

from gevffi import ws


class Echo(ws.Handler):
    def on_message(self, conn: ws.Connection, message: Any) -> Any:
        return message  # text as text, bytes as bytes


class Door(webpage.Door):
    page = webpage.load("echo.html")


if __name__ == "__main__":
    server = ws.Server(
        Echo(),
        sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9001",
        path="/ws",
        upgrader=Door,
        max_message_size=1 << 20,  # more closes the connection, with 1009
        max_connections=1000,
    )
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM tells the pages that it goes away, and stops

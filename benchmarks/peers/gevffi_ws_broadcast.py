"""gevffi's WebSocket `broadcast`: what one connection sends goes to all of them."""

from __future__ import annotations

from typing import Any

from gevffi import ws


class Hub(ws.Handler):
    """Sends whatever comes to everybody."""

    def on_message(self, conn: ws.Connection, message: Any) -> None:
        server.broadcast(message)


if __name__ == "__main__":
    server = ws.Server(Hub(), "127.0.0.1:0")
    server.run_after(0, lambda: print(f"listening on {server.address}", flush=True))
    server.start()

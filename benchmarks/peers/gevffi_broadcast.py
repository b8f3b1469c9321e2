"""gevffi's `broadcast`: what one connection sends goes to all of them."""

from __future__ import annotations

from typing import Any

import gevffi


class Hub(gevffi.Handler):
    """Sends whatever comes to everybody."""

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> None:
        server.broadcast(data)


if __name__ == "__main__":
    server = gevffi.Server(Hub(), "127.0.0.1:0")
    server.run_after(0, lambda: print(f"listening on {server.address}", flush=True))
    server.start()

"""uWebSockets through socketify: the WebSocket server in C++ that many others are measured by.

It calls back into Python for each message, through cffi.
"""

from __future__ import annotations

from typing import Any

from socketify import App, CompressOptions


def echo(socket: Any, message: Any, opcode: Any) -> None:
    """Sends back whatever comes."""
    socket.send(message, opcode)


def serve() -> None:
    """Listen on a free port of 127.0.0.1, say which, and serve for ever."""
    app = App()
    options = {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": 1 << 20,
        "idle_timeout": 0,
        "message": echo,
    }
    app.ws("/", options)
    address = {"host": "127.0.0.1", "port": 0}
    app.listen(address, lambda to: print(f"listening on 127.0.0.1:{to.port}", flush=True))
    app.run()


if __name__ == "__main__":
    serve()

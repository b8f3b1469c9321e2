"""The standard library's `socketserver`: a blocking thread for each connection.

The server that most Python programs start with, at its best: a large backlog, TCP_NODELAY, and
reads of 64 KiB.
"""

from __future__ import annotations

import socket
import socketserver

READ_BYTES = 65536


class Echo(socketserver.BaseRequestHandler):
    """One connection, on a thread of its own."""

    def setup(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle(self) -> None:
        while data := self.request.recv(READ_BYTES):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    """A threading server that can be ended while clients are connected."""

    daemon_threads = True
    request_queue_size = 4096


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Echo) as server:
        print(f"listening on 127.0.0.1:{server.socket.getsockname()[1]}", flush=True)
        server.serve_forever()

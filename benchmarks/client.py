"""One connection made by Python itself, for everything that is not load.

A client that is not ours in any part: the standard library's socket, a message, its echo.
"""

from __future__ import annotations

import socket

from benchmarks.errors import BenchmarkError
from benchmarks.process import Running

# 64 bytes that are a length-prefixed frame as well, for the servers that cut those.
MESSAGE = (60).to_bytes(4, "big") + bytes(range(60))
ANSWER_SECONDS = 10.0


def connect(server: Running, message: bytes = MESSAGE) -> socket.socket:
    """Open a connection and see one message echoed on it; the caller closes it.

    Raises:
        BenchmarkError: the echo is wrong, or does not come within `ANSWER_SECONDS`.
    """
    connection = socket.socket()
    try:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(message)
        answer = b""
        while len(answer) < len(message) and (more := connection.recv(len(message))):
            answer += more
        if answer != message:
            raise BenchmarkError(f"a Python socket sent {message!r} and got {answer!r} back")
    except OSError as exc:
        connection.close()
        raise BenchmarkError(f"a Python socket was not answered: {exc}") from exc
    except BaseException:
        connection.close()
        raise
    return connection

"""A WebSocket on the command line: lines in, messages out.

    python examples/wscat.py [URL]

Each line of the standard input is sent as a text message; what comes is printed. The end of the
input (Ctrl-D) closes the connection, and so may the server.

Two threads share one client: this one waits for messages, the other for lines.
"""

from __future__ import annotations

import contextlib
import sys
import threading

from gevffi import ws


def send_lines(client: ws.Client) -> None:
    """Send what is typed, until the end."""
    # Not sys.stdin, whose lock this thread would hold when the program ends.
    with open(0, "rb", buffering=0, closefd=False) as lines:
        with contextlib.suppress(ws.ConnectionClosedError):  # which the other thread tells of
            for line in lines:
                client.send_text(line.rstrip(b"\n").decode())
        client.close()


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:9001/"
    try:
        with ws.Client(url) as client:
            print("connected to", url, flush=True)
            threading.Thread(target=send_lines, args=[client], daemon=True).start()
            for message in client:
                print(message if isinstance(message, str) else f"{len(message)} bytes", flush=True)
    except (OSError, ValueError, ws.HandshakeError) as exc:
        sys.exit(f"wscat: {exc}")

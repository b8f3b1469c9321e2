"""A server that draws itself: its own numbers, five times a second, as moving plots in the browser.

    python examples/ws_dashboard.py [ADDRESS]       and open http://127.0.0.1:9001/

It is an echo (at /echo) that can be watched (at /stats). The page has a knob that makes some
traffic. What it shows is `loop.stats()`, which costs the messages nothing, and a number of its own.
A sample is encoded once for all who watch. Counters go out as they are, and the page makes rates of
two of them: so a page that misses some draws a longer line and nothing wrong, and who does not keep
up can be left out for a while.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from typing import Any

import webpage

from gevffi import EventLoop, ws
from gevffi.stats import TURN_SECONDS

INTERVAL = 0.2
"""Seconds between two samples."""
HISTORY = 60.0
"""Seconds that a page shows, and that one that comes now gets at once."""


class Dashboard(ws.Handler):
    """Runs on one loop, whose thread `watching` belongs to."""

    def __init__(self) -> None:
        self.watching: set[ws.Connection] = set()
        self.echoed = 0
        self.samples: deque[str] = deque(maxlen=round(HISTORY / INTERVAL))

    def on_open(self, conn: ws.Connection, request: ws.Request) -> None:
        if request.path == "/stats":
            conn.context = "watches"
            self.watching.add(conn)
            about = json.dumps({"history": HISTORY, "turnSeconds": TURN_SECONDS})
            conn.send_text(f'{{"about": {about}, "samples": [{",".join(self.samples)}]}}')

    def on_message(self, conn: ws.Connection, message: Any) -> Any:
        if conn.context is None:
            self.echoed += 1
            return message
        conn.close(1008, "there is nothing to say here")
        return None

    def on_high_water(self, conn: ws.Connection) -> None:
        self.watching.discard(conn)

    def on_drain(self, conn: ws.Connection) -> None:
        if conn.context == "watches":
            self.watching.add(conn)

    def on_close(self, conn: ws.Connection, code: int, reason: str) -> None:
        self.watching.discard(conn)

    def sample(self, loop: EventLoop) -> None:
        """Take a sample, and send it to all who watch."""
        stats = loop.stats()
        text = json.dumps(
            {
                "time": round(time.monotonic(), 4),  # seconds, as all times here
                "cpu": round(time.process_time(), 4),
                "connections": stats.connections,
                "echoed": self.echoed,
                "messagesSent": stats.messages_sent,
                "bytesReceived": stats.bytes_received,
                "bytesSent": stats.bytes_sent,
                "unsentBytes": stats.unsent_bytes,
                "events": stats.events,
                "turns": stats.turns,
                "busy": round(stats.turn_seconds, 6),
                "errors": stats.handler_errors,
            }
        )
        self.samples.append(text)
        ws.broadcast(self.watching, f'{{"samples": [{text}]}}')


class Door(webpage.Door):
    page = webpage.load("dashboard.html")

    def on_request(self, conn: Any, request: ws.Request) -> None:
        if request.path not in ("/stats", "/echo"):
            raise ws.RefuseError(404)
        super().on_request(conn, request)


def make_server(address: str) -> ws.Server:
    """An echo and its dashboard."""
    dashboard = Dashboard()
    server = ws.Server(
        dashboard,
        address,
        upgrader=Door,
        max_message_size=1 << 16,
        max_connections=1000,
        write_limit=1 << 20,
    )
    server.run_every(INTERVAL, lambda: dashboard.sample(server.loops[0]))
    return server


if __name__ == "__main__":
    server = make_server(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9001")
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM tells the pages that it goes away, and stops

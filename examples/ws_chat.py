"""A chat in the browser: the page comes from the port that its WebSockets connect to.

    python examples/ws_chat.py [ADDRESS]       and open http://127.0.0.1:9001/ in a few windows

The first message is one's name and the others everybody gets, so there is nothing to parse in what
members send. What they get is JSON, and the page shows it as text, whatever is in it.

Nobody can be in the way of the others:

* Who does not read gets up to `write_limit` kept for him, and is closed then. A broadcast goes to
  each member as far as that one takes it, and waits for none.
* Who writes too much is not read for a while: his messages wait on his side.
* A message over 3000 bytes closes its sender's connection with 1009. The page takes 1000 UTF-16
  code units, which are never more.
* Names have no control characters in them, and are compared after folding case and the like.
"""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections import deque
from typing import Any

import webpage

from gevffi import ws

BURST = 2.0
"""Seconds' worth of messages that a member may send at once."""


class Member:
    """Somebody who has a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paid_until = 0.0  # in time.monotonic(): each message costs some time


class Chat(ws.Handler):
    """Runs on one loop, whose thread all of this belongs to.

    Args:
        rate: messages a second that a member may send for long.
    """

    def __init__(self, rate: float) -> None:
        self.cost = 1 / rate
        self.members: dict[str, ws.Connection] = {}  # by `key` of their names
        self.said: deque[dict[str, Any]] = deque(maxlen=50)  # for those who come later

    def on_message(self, conn: ws.Connection, message: str | memoryview) -> str | None:
        if not isinstance(message, str):
            conn.close(1003, "text only, please")
            return None
        if conn.context is None:
            return self.enter(conn, message)
        self.pay(conn)
        entry = event("said", name=conn.context.name, text=message)
        self.said.append(entry)
        self.tell(entry)
        return None

    def on_close(self, conn: ws.Connection, code: int, reason: str) -> None:
        if conn.context is not None:
            del self.members[key(conn.context.name)]
            self.tell(event("left", name=conn.context.name))

    def enter(self, conn: ws.Connection, wanted: str) -> str:
        """Make a member of a connection, if it can have that name; return what to tell it."""
        name = unicodedata.normalize("NFC", wanted.strip())
        if not (name.isprintable() and 1 <= len(name) <= 20):
            return encode(event("refused", why="A name has 1 to 20 visible characters."))
        if key(name) in self.members:
            return encode(event("refused", why="Somebody has that name already."))
        self.tell(event("joined", name=name))
        self.members[key(name)] = conn
        conn.context = Member(name)
        here = [member.context.name for member in self.members.values()]
        return encode(event("welcome", name=name, here=here, said=list(self.said)))

    def pay(self, conn: ws.Connection) -> None:
        """Charge a member for a message. Who is too far ahead of time is not read until then."""
        now = time.monotonic()
        conn.context.paid_until = max(conn.context.paid_until, now) + self.cost
        early = conn.context.paid_until - now - BURST
        if early > 0:
            conn.pause_reading()
            conn.loop.call_later(early, conn.resume_reading)

    def tell(self, entry: dict[str, Any]) -> None:
        """Send to all members. It is encoded once, and copied for those only who are slow."""
        ws.broadcast(self.members.values(), encode(entry))


def event(kind: str, **more: Any) -> dict[str, Any]:
    """What members are sent."""
    return {"kind": kind, "at": round(time.time() * 1000), **more}


def encode(entry: dict[str, Any]) -> str:
    """As JSON, in which a text has hardly more bytes than its member has sent."""
    return json.dumps(entry, ensure_ascii=False)


def key(name: str) -> str:
    """What is the same for names that look the same, or nearly."""
    return unicodedata.normalize("NFKC", name).casefold()


class Door(webpage.Door):
    page = webpage.load("chat.html")


def make_server(address: str, rate: float = 5.0) -> ws.Server:
    """A chat whose members may send `rate` messages a second each."""
    return ws.Server(
        Chat(rate),
        address,
        path="/ws",
        upgrader=Door,
        max_message_size=3000,
        max_connections=1000,
        write_limit=1 << 20,
    )


if __name__ == "__main__":
    server = make_server(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9001")
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM tells the pages that it goes away, and stops

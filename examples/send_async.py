"""gev's sendAsync demo: answers that are made, and sent, on other threads.

    python examples/send_async.py [ADDRESS]

A callback must not block, so slow work goes to a pool of threads. `conn.send` works from any of
them, and a message may be kept for them as it is: its bytes never change. `on_sent` is called when
the kernel has taken the answer, on the loop's thread again.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevffi


class Hashing(gevffi.Handler):
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool

    def on_message(self, conn: gevffi.Connection, ctx: Any, data: Any) -> None:
        self.pool.submit(self.work, conn, data)

    def work(self, conn: gevffi.Connection, data: memoryview) -> None:
        digest = hashlib.pbkdf2_hmac("sha256", data, b"salt", 10_000).hex()
        # A peer that has left meanwhile is no error: then this does nothing.
        conn.send(digest.encode(), on_sent=self.sent)

    def sent(self, conn: gevffi.Connection) -> None:
        print("sent to", conn.peer_address, flush=True)


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    with ThreadPoolExecutor(4) as pool:
        server = gevffi.Server(Hashing(pool), address, protocol=gevffi.Delimited(b"\n"))
        server.run_after(0, lambda: print("listening on", server.address, flush=True))
        server.start()  # Ctrl-C or SIGTERM drains and stops

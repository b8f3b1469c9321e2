"""A feed of market data, added up with NumPy: no Python step for a record, only for a read.

    pip install 'gevffi[examples]'
    python examples/ticks_numpy.py [ADDRESS]              the server
    python examples/ticks_numpy.py ADDRESS feed 100000    a feed of so many ticks

    |  time  | symbol |  size  | price  | venue  |      32 bytes, little-endian
    |   u8   |   u4   |   u4   |   f8   |   S8   |

A read of a connection may hold some thousand ticks. `on_batch` gets them at once, and as records of
one size lie one behind the other, `batch.span` is an array of them without a copy. When a feed ends
its side it gets a summary of all that the server has seen.
"""

from __future__ import annotations

import socket
import sys
from typing import Any

import numpy as np

import gevffi

TICK = np.dtype(
    [("time", "<u8"), ("symbol", "<u4"), ("size", "<u4"), ("price", "<f8"), ("venue", "S8")]
)
SYMBOLS = 16
HIGHEST = 1e9


class Ticks(gevffi.Handler):
    """Adds up, for each symbol. Runs on one loop, whose thread the arrays belong to."""

    def __init__(self) -> None:
        self.count = np.zeros(SYMBOLS, np.int64)
        self.volume = np.zeros(SYMBOLS)
        self.turnover = np.zeros(SYMBOLS)
        self.last = np.full(SYMBOLS, np.nan)

    def on_batch(self, conn: gevffi.Connection, batch: gevffi.Batch) -> None:
        ticks = np.frombuffer(batch.span, TICK)
        symbol, size, price = ticks["symbol"], ticks["size"], ticks["price"]
        if symbol.max() >= SYMBOLS or not ((price > 0) & (price < HIGHEST)).all():  # nor NaN
            raise gevffi.ProtocolError("a tick of no symbol, or at no price")
        self.count += np.bincount(symbol, minlength=SYMBOLS)
        self.volume += np.bincount(symbol, size, SYMBOLS)
        self.turnover += np.bincount(symbol, size * price, SYMBOLS)
        self.last[symbol] = price  # of equal symbols the last one stays

    def on_eof(self, conn: gevffi.Connection) -> bool | None:
        lines = [f"{'symbol':>6} {'ticks':>10} {'volume':>14} {'average':>10} {'last':>10}"]
        for symbol in np.flatnonzero(self.count):
            average = self.turnover[symbol] / max(self.volume[symbol], 1)
            lines.append(
                f"{symbol:6} {self.count[symbol]:10} {self.volume[symbol]:14.0f} "
                f"{average:10.4f} {self.last[symbol]:10.4f}"
            )
        conn.send("\n".join([*lines, ""]).encode())
        return None  # that was all: close


def make_ticks(count: int) -> np.ndarray[Any, Any]:
    """So many ticks, the same each time."""
    random = np.random.default_rng(1)
    ticks = np.zeros(count, TICK)
    ticks["time"] = np.arange(count)
    ticks["symbol"] = random.integers(0, SYMBOLS, count)
    ticks["size"] = random.integers(1, 1000, count)
    ticks["price"] = 100 + ticks["symbol"] + random.normal(0, 1, count)
    ticks["venue"] = b"XNAS"
    return ticks


def feed(address: str, count: int) -> str:
    """Send ticks; return the server's summary."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(make_ticks(count).tobytes())
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile(encoding="ascii") as answer:
            return answer.read()


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    if sys.argv[2:3] == ["feed"]:
        print(feed(address, int(sys.argv[3])), end="")
    else:
        server = gevffi.Server(Ticks(), address, protocol=gevffi.FixedSize(TICK.itemsize))
        server.run_after(0, lambda: print("listening on", server.address, flush=True))
        server.start()  # Ctrl-C or SIGTERM drains and stops

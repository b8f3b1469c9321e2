"""`python -m compliance.client URL AGENT`: gevffi's client on a loop, for the suite as a server.

    /getCaseCount ──▶ /runCase?case=1 ──▶ ... ──▶ /runCase?case=N ──▶ /updateReports

One connection after the other, each begun when the one before has closed. What comes is sent back.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

from gevffi import EventLoop, Options, ws

# The largest message in the suite has 16 MiB, and is sent back as fast as it comes.
LARGEST = 16 << 20
OPTIONS = Options(write_limit=1 << 30, write_high_water=1 << 30)


class Cases(ws.Handler):
    """Goes through all cases.

    Args:
        loop: whose connections they are.
        url: of the suite.
        agent: what the report calls us.
    """

    def __init__(self, loop: EventLoop, url: str, agent: str) -> None:
        self._loop = loop
        self._url = url
        self._agent = agent
        self._count: int | None = None
        self._case = 0
        self.done = threading.Event()
        self.failure: Exception | None = None

    def begin(self) -> None:
        """Ask how many there are."""
        self._connect("getCaseCount")

    def _connect(self, path: str) -> None:
        ws.connect(
            self._loop,
            f"{self._url}/{path}",
            self,
            max_message_size=LARGEST,
            text="bytes",
        )

    def on_message(self, conn: ws.Connection, message: Any) -> Any:
        """The number of cases, and then what is to be sent back."""
        if self._count is None:
            self._count = int(message)
            return None
        return message

    def on_close(self, conn: ws.Connection, code: int, reason: str) -> None:
        """Go on with the next."""
        if self._count is None:
            self.failure = ValueError("the suite did not say how many cases it has")
            self.done.set()
        elif self._case < self._count:
            self._case += 1
            self._connect(f"runCase?case={self._case}&agent={self._agent}")
        elif self._case == self._count:
            self._case += 1
            self._connect(f"updateReports?agent={self._agent}")
        else:
            self.done.set()

    def on_connect_failed(self, conn: ws.Connection, exc: Exception) -> None:
        """It is of no use to go on."""
        self.failure = exc
        self.done.set()


def main(arguments: Sequence[str]) -> int:
    """Run; returns the exit status."""
    url, agent = arguments
    with EventLoop(OPTIONS, name="client").running() as loop:
        cases = Cases(loop, url, agent)
        cases.begin()
        cases.done.wait()
    if cases.failure is not None:
        print(f"compliance: {cases.failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

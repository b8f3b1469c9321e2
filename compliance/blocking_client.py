"""`python -m compliance.blocking_client URL AGENT`: the client that blocks, the same way."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from compliance.client import LARGEST
from gevffi import ws


def main(arguments: Sequence[str]) -> int:
    """Run; returns the exit status."""
    url, agent = arguments
    with ws.Client(f"{url}/getCaseCount") as client:
        count = int(client.receive())
    for case in range(1, count + 1):
        run(f"{url}/runCase?case={case}&agent={agent}")
    with ws.Client(f"{url}/updateReports?agent={agent}"):
        return 0


def run(url: str) -> None:
    """Send back what comes until the suite ends."""
    with ws.Client(url, max_message_size=LARGEST) as client:
        try:
            for message in client:
                if isinstance(message, str):
                    client.send_text(message)
                else:
                    client.send_binary(message)
        except ws.ConnectionClosedError:
            pass  # most cases are about a bad end


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

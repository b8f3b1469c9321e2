"""What a measurement yields: raw figures, and what follows from them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Sample:
    """One server under one load for one window. Times in seconds, latencies in microseconds.

    `messages` came back inside the window, `all_messages` from the first connection to the last.
    """

    case: str
    peer: str
    round: int
    messages: int
    all_messages: int
    window_seconds: float
    server_cpu_seconds: float
    client_cpu_seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float

    @classmethod
    def from_load(cls, case: str, peer: str, number: int, line: str) -> Sample:
        """Make a sample of the line of JSON that the load generator prints."""
        return cls(case, peer, number, **json.loads(line))

    @property
    def messages_per_second(self) -> float:
        return self.messages / self.window_seconds

    @property
    def messages_per_cpu_second(self) -> float:
        return self.messages / self.server_cpu_seconds

    @property
    def cpu_us_per_message(self) -> float:
        return self.server_cpu_seconds / self.messages * 1e6

    def figures(self) -> dict[str, object]:
        """The raw figures and the derived ones, for JSON."""
        return {
            **asdict(self),
            "messages_per_second": self.messages_per_second,
            "messages_per_cpu_second": self.messages_per_cpu_second,
            "cpu_us_per_message": self.cpu_us_per_message,
        }


@dataclass(frozen=True)
class IdleSample:
    """One server holding connections that say nothing."""

    case: str
    peer: str
    connections: int
    memory_bytes: int
    cpu_seconds: float
    seconds: float

    @property
    def bytes_per_connection(self) -> float:
        return self.memory_bytes / self.connections

    @property
    def cpu_share(self) -> float:
        """The share of a core used while nothing happened."""
        return self.cpu_seconds / self.seconds

    def figures(self) -> dict[str, object]:
        """The raw figures and the derived ones, for JSON."""
        return {
            **asdict(self),
            "bytes_per_connection": self.bytes_per_connection,
            "cpu_share": self.cpu_share,
        }


@dataclass(frozen=True)
class GrowthSample:
    """One loop beside so many things that do nothing; `figures` are those of the case."""

    case: str
    peer: str
    round: int
    count: int
    figures: dict[str, float]

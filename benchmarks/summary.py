"""From samples to statements: medians, ratios within a round, targets met or not.

The ratio of two servers is taken within a round, where they ran one after the other on the same
machine in the same mood, and only then is the median taken over rounds. A machine that gets
slower half-way disturbs both sides of every ratio, and so none of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.cases import Case, GrowthCase, IdleCase
from benchmarks.samples import GrowthSample, IdleSample, Sample

FIGURES = (
    "messages_per_second",
    "cpu_us_per_message",
    "messages_per_cpu_second",
    "p50_us",
    "p99_us",
    "p999_us",
)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some values."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value.

        Raises:
            ValueError: there is none.
        """
        ordered = sorted(values)
        if not ordered:
            raise ValueError("a spread needs at least one value")
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


@dataclass(frozen=True)
class Line:
    """What a case says about one peer.

    Attributes:
        figures: the spread of every name in `FIGURES`.
        ratio: the case's subject divided by this peer, or None for the subject itself and when
            the subject was not measured.
        target: what the ratio should be at least, or None.
    """

    case: Case
    peer: str
    rounds: int
    figures: dict[str, Spread]
    ratio: Spread | None
    target: float | None

    @property
    def met(self) -> bool | None:
        """Whether the median ratio reaches the target; None when there is nothing to reach."""
        if self.ratio is None or self.target is None:
            return None
        return self.ratio.median >= self.target


@dataclass(frozen=True)
class IdleLine:
    """What an idle case says about one peer; `met` is None for all but its subject."""

    case: IdleCase
    sample: IdleSample
    met: bool | None


@dataclass(frozen=True)
class GrowthLine:
    """What a growth case says about one peer beside so many things.

    Attributes:
        figures: the spread of each figure of the case.
        growth: the figure that is not to grow, divided by what it is beside the fewest that there
            are any of; None beside these, and beside none.
        met: whether the median growth is no more than the case allows; None for all but the
            subject beside the most.
    """

    case: GrowthCase
    peer: str
    count: int
    rounds: int
    figures: dict[str, Spread]
    growth: Spread | None
    met: bool | None


def ratio(case: Case, samples: Sequence[Sample], peer: str) -> Spread | None:
    """The subject's figure divided by the peer's, round by round."""
    values: dict[tuple[str, int], float] = {
        (s.peer, s.round): getattr(s, case.compares) for s in samples if s.case == case.name
    }
    rounds = {number for name, number in values if name == peer}
    ratios = [
        values[case.subject, number] / values[peer, number]
        for number in sorted(rounds)
        if (case.subject, number) in values
    ]
    return Spread.of(ratios) if ratios and peer != case.subject else None


def summarise(case: Case, samples: Sequence[Sample]) -> list[Line]:
    """A line for each peer that was measured, in the order the case names them."""
    lines = []
    for peer in case.peers:
        own = [s for s in samples if s.case == case.name and s.peer == peer]
        if own:
            figures = {name: Spread.of(getattr(s, name) for s in own) for name in FIGURES}
            compared = ratio(case, samples, peer)
            target = case.targets.get(peer)
            lines.append(Line(case, peer, len(own), figures, compared, target))
    return lines


def summarise_idle(case: IdleCase, samples: Sequence[IdleSample]) -> list[IdleLine]:
    """A line for each peer; the subject's says whether both limits were kept."""
    return [
        IdleLine(
            case,
            s,
            s.bytes_per_connection <= case.max_bytes and s.cpu_share <= case.max_cpu_share
            if s.peer == case.subject
            else None,
        )
        for s in samples
        if s.case == case.name
    ]


def summarise_growth(case: GrowthCase, samples: Sequence[GrowthSample]) -> list[GrowthLine]:
    """A line for each peer and count that was measured, in the order of the case."""
    lines = []
    for peer in case.peers:
        own = [s for s in samples if s.case == case.name and s.peer == peer]
        counts = sorted({s.count for s in own})
        fewest = min(filter(None, counts), default=0)
        least = {s.round: s.figures[case.flat] for s in own if s.count == fewest}
        for count in counts:
            beside = [s for s in own if s.count == count]
            growth = None
            if count > fewest:
                growth = Spread.of(s.figures[case.flat] / least[s.round] for s in beside)
            judged = peer == case.subject and count == counts[-1]
            met = growth.median <= case.most_growth if growth and judged else None
            figures = {name: Spread.of(s.figures[name] for s in beside) for name in case.figures}
            lines.append(GrowthLine(case, peer, count, len(beside), figures, growth, met))
    return lines


def shortfalls(
    lines: Sequence[Line], idle: Sequence[IdleLine], growth: Sequence[GrowthLine]
) -> list[str]:
    """A sentence for every target that was not met."""
    short = [
        f"{line.case.name}: {line.ratio.median:.3f}x of {line.peer}, target {line.target:.2f}x"
        for line in lines
        if line.met is False and line.ratio is not None
    ]
    short += [
        f"{line.case.name}: {line.sample.bytes_per_connection:.0f} bytes a connection (at most "
        f"{line.case.max_bytes}), {line.sample.cpu_share:.2%} of a core (at most "
        f"{line.case.max_cpu_share:.1%})"
        for line in idle
        if line.met is False
    ]
    short += [
        f"{line.case.name}: {line.growth.median:.2f}x the CPU of a turn beside {line.count:,} "
        f"{line.case.things}, at most {line.case.most_growth:.2f}x"
        for line in growth
        if line.met is False and line.growth is not None
    ]
    return short

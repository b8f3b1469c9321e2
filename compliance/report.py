"""Reads what the suite found and says whether it is good enough.

The suite judges a case twice: how it went, and how the connection was closed at its end. Here a
case is as it should be when both are OK. Three cases look at behaviour that the RFC leaves open
and never say anything but INFORMATIONAL; for these, and no others, that counts.

A case that was asked for and is not in the report is MISSING, which is what a server that died
half-way leaves behind: the suite then writes its report all the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compliance.errors import ComplianceError

MISSING = "MISSING"
OPEN_CASES = frozenset({"7.1.6", "7.13.1", "7.13.2"})
"""Cases of which the suite itself says that the outcome is not defined by the RFC."""

VERDICTS = ("OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED", MISSING)
"""What the suite says about a case, from good to bad. Of a close it knows some more."""

SECTIONS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    9: "limits and performance",
    10: "auto-fragmentation",
    12: "compression",
    13: "compression, parameters",
}


def order(case: str) -> tuple[int, ...]:
    """The key that puts 2.10 after 2.9."""
    return tuple(int(number) for number in case.split("."))


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        case: its number, such as "6.4.1".
        behavior: the suite's verdict on what was exchanged.
        close: its verdict on how the connection was closed.
        detail: the file with the wire log, relative to the report.
    """

    case: str
    behavior: str
    close: str
    detail: str

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        accepted = {"OK", "INFORMATIONAL"} if self.case in OPEN_CASES else {"OK"}
        return self.behavior in accepted and self.close in accepted


def read(index: Path, wanted: Iterable[str]) -> list[Outcome]:
    """The outcome of every case in `wanted`, in their order.

    Args:
        index: the suite's `index.json`.
        wanted: the cases that were to be run.

    Raises:
        ComplianceError: there is no such report, or it is not about one peer.
    """
    try:
        agents = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ComplianceError(f"the suite left no report that can be read: {exc}") from exc
    if not isinstance(agents, dict) or len(agents) != 1:
        raise ComplianceError(f"{index}: a report about one peer was expected")
    (cases,) = agents.values()
    nothing = {"behavior": MISSING, "behaviorClose": MISSING, "reportfile": ""}
    outcomes = []
    for case in sorted(set(wanted), key=order):
        found = cases.get(case, nothing)
        detail = found["reportfile"].replace(".json", ".html")
        outcomes.append(Outcome(case, found["behavior"], found["behaviorClose"], detail))
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> str:
    """A Markdown table with a row for each section, and a line for each case that is not OK."""
    seen = {outcome.behavior for outcome in outcomes}
    verdicts = ["OK", *(verdict for verdict in VERDICTS[1:] if verdict in seen)]
    table = [
        f"| section | cases | {' | '.join(verdicts)} | closed as it should be |",
        f"|---|--:|{'--:|' * len(verdicts)}--:|",
    ]
    sections = sorted({order(outcome.case)[0] for outcome in outcomes})
    for number in sections:
        own = [outcome for outcome in outcomes if order(outcome.case)[0] == number]
        table.append(_row(f"{number} {SECTIONS.get(number, '')}".strip(), own, verdicts))
    table.append(_row("all", outcomes, verdicts))
    odd = [
        f"* {outcome.case}: {outcome.behavior}, close {outcome.close}"
        + ("" if outcome.good else f" -- not as it should be {outcome.detail}".rstrip())
        for outcome in outcomes
        if (outcome.behavior, outcome.close) != ("OK", "OK")
    ]
    return "\n".join([*table, *([""] if odd else []), *odd])


def _row(name: str, outcomes: Sequence[Outcome], verdicts: Sequence[str]) -> str:
    counts = Counter(outcome.behavior for outcome in outcomes)
    closed = sum(
        outcome.close == "OK" or (outcome.close == "INFORMATIONAL" and outcome.good)
        for outcome in outcomes
    )
    cells = [name, len(outcomes), *(counts[verdict] for verdict in verdicts), closed]
    return f"| {' | '.join(map(str, cells))} |"

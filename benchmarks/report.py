"""Writes what a run found: JSON with everything, CSV, and a Markdown table for the README.

results.json   machine, command line, every sample of every round, the summary
results.csv    a row for each case and peer
table.md       the same, to be read by people
chart.png      see chart.py
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cases import CASES, GROWTH_CASES, IDLE_CASES
from benchmarks.registry import PEERS
from benchmarks.samples import GrowthSample, IdleSample, Sample
from benchmarks.summary import (
    FIGURES,
    GrowthLine,
    IdleLine,
    Line,
    Spread,
    shortfalls,
    summarise,
    summarise_growth,
    summarise_idle,
)

GROWTH_FIGURES = tuple(
    dict.fromkeys(name for case in GROWTH_CASES.values() for name in case.figures)
)

_ENDS = ("median", "min", "max")


@dataclass(frozen=True)
class Results:
    """A finished run.

    Attributes:
        machine: see `machine.describe`.
        command: the command line, as typed.
        options: rounds, seconds and the like.
        absent: peers that could not be measured, and why.
        notes: what was done differently than the case says, and why.
        samples: every round of every load case.
        idle: the idle cases, one sample a peer.
        growth: every round of every growth case.
    """

    machine: dict[str, object]
    command: str
    options: dict[str, object]
    absent: dict[str, str]
    notes: list[str]
    samples: list[Sample]
    idle: list[IdleSample]
    growth: list[GrowthSample]

    def lines(self) -> list[Line]:
        """The summary of the load cases, in the order of the cases."""
        return [line for case in CASES.values() for line in summarise(case, self.samples)]

    def idle_lines(self) -> list[IdleLine]:
        """The summary of the idle cases, in their order."""
        return [line for case in IDLE_CASES.values() for line in summarise_idle(case, self.idle)]

    def growth_lines(self) -> list[GrowthLine]:
        """The summary of the growth cases, in their order."""
        return [
            line for case in GROWTH_CASES.values() for line in summarise_growth(case, self.growth)
        ]

    def remarks(self) -> list[str]:
        """What a reader of the figures has to know: absent peers, what was done differently."""
        absent = [f"not measured: {name} ({why})" for name, why in self.absent.items()]
        return absent + [f"note: {note}" for note in self.notes]

    def shortfalls(self) -> list[str]:
        """A sentence for every target that was not met."""
        return shortfalls(self.lines(), self.idle_lines(), self.growth_lines())


def write(results: Results, folder: Path) -> None:
    """Write the three text files into `folder`, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(as_json(results), encoding="utf-8")
    with (folder / "results.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows(results))
    (folder / "table.md").write_text(as_markdown(results), encoding="utf-8")


def as_json(results: Results) -> str:
    """Everything that is known about the run."""
    summary = [
        {
            "case": line.case.name,
            "peer": line.peer,
            "rounds": line.rounds,
            **{name: asdict(spread) for name, spread in line.figures.items()},
            "compared_by": line.case.compares,
            "ratio": asdict(line.ratio) if line.ratio else None,
            "target": line.target,
            "met": line.met,
        }
        for line in results.lines()
    ]
    everything = {
        "machine": results.machine,
        "command": results.command,
        "options": results.options,
        "absent": results.absent,
        "notes": results.notes,
        "cases": {name: asdict(case) for name, case in CASES.items()},
        "summary": summary,
        "samples": [sample.figures() for sample in results.samples],
        "idle": [line.sample.figures() | {"met": line.met} for line in results.idle_lines()],
        "growth": {
            "summary": [
                {
                    "case": line.case.name,
                    "peer": line.peer,
                    "count": line.count,
                    "rounds": line.rounds,
                    **{name: asdict(spread) for name, spread in line.figures.items()},
                    "growth": asdict(line.growth) if line.growth else None,
                    "met": line.met,
                }
                for line in results.growth_lines()
            ],
            "samples": [asdict(sample) for sample in results.growth],
        },
        "shortfalls": results.shortfalls(),
    }
    return json.dumps(everything, indent=1) + "\n"


def rows(results: Results) -> list[list[object]]:
    """The CSV: a head, then a row for each case and peer; empty where there is no figure."""
    spreads = (*FIGURES, "ratio", *GROWTH_FIGURES, "growth")
    idle = ["idle_connections", "idle_bytes_per_connection", "idle_cpu_share"]
    ends = [f"{name}_{end}" for name in spreads for end in _ENDS]
    heads = ["case", "peer", "rounds", "count", *ends, *idle, "target", "met"]
    found: list[dict[str, object]] = [
        {
            "case": line.case.name,
            "peer": line.peer,
            "rounds": line.rounds,
            **_ends(line.figures, "ratio", line.ratio),
            "target": line.target,
            "met": line.met,
        }
        for line in results.lines()
    ]
    found += [
        {
            "case": entry.case.name,
            "peer": entry.sample.peer,
            "rounds": 1,
            "idle_connections": entry.sample.connections,
            "idle_bytes_per_connection": entry.sample.bytes_per_connection,
            "idle_cpu_share": entry.sample.cpu_share,
            "target": None if entry.met is None else entry.case.max_bytes,
            "met": entry.met,
        }
        for entry in results.idle_lines()
    ]
    found += [
        {
            "case": beside.case.name,
            "peer": beside.peer,
            "rounds": beside.rounds,
            "count": beside.count,
            **_ends(beside.figures, "growth", beside.growth),
            "target": None if beside.met is None else beside.case.most_growth,
            "met": beside.met,
        }
        for beside in results.growth_lines()
    ]
    table: list[list[object]] = [list(heads)]
    table += [["" if row.get(head) is None else row[head] for head in heads] for row in found]
    return table


def _ends(figures: Mapping[str, Spread], name: str, spread: Spread | None) -> dict[str, object]:
    """The columns of some spreads, and of one that there may be."""
    given = {**figures, **({name: spread} if spread else {})}
    return {f"{name}_{end}": getattr(s, end) for name, s in given.items() for end in _ENDS}


def as_markdown(results: Results) -> str:
    """Tables that a README can include."""
    out: list[str] = []
    lines = results.lines()
    for case in CASES.values():
        own = [line for line in lines if line.case is case]
        if own:
            out += [f"**{case.name}**: {case.about}", "", *_markdown_case(own), ""]
    for idle_case in IDLE_CASES.values():
        watched = [s for s in results.idle if s.case == idle_case.name]
        if watched:
            seconds = watched[0].seconds
            out += [f"**{idle_case.name}**: {idle_case.about}, over {seconds:.1f} s", ""]
            out += ["| server | connections | bytes a connection | CPU |", "|---|--:|--:|--:|"]
            out += [
                f"| {PEERS[s.peer].about} | {s.connections:,} | {s.bytes_per_connection:,.0f} "
                f"| {s.cpu_share:.2%} |"
                for s in watched
            ]
            out.append("")
    for growth_case in GROWTH_CASES.values():
        beside = [line for line in results.growth_lines() if line.case is growth_case]
        if beside:
            out += [
                f"**{growth_case.name}**: {growth_case.about}",
                "",
                *_markdown_growth(beside),
                "",
            ]
    remarks = results.remarks()
    remarks += [f"short of target: {sentence}" for sentence in results.shortfalls()]
    if remarks:
        out += [*(f"* {remark}" for remark in remarks), ""]
    return "\n".join([*out, _origin(results), ""])


def _markdown_case(lines: list[Line]) -> list[str]:
    subject = lines[0].case.subject
    compared = "per second" if lines[0].case.by_rate else "per CPU second"
    table = [
        f"| server | CPU µs/message | messages/s | p50 µs | p99 µs | p99.9 µs "
        f"| {subject} {compared} against it | target |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        cpu = line.figures["cpu_us_per_message"]
        rate = line.figures["messages_per_second"]
        cells = [
            PEERS[line.peer].about,
            f"{cpu.median:.2f} ({cpu.min:.2f}-{cpu.max:.2f})",
            f"{rate.median:,.0f} ({rate.min:,.0f}-{rate.max:,.0f})",
            *(f"{line.figures[name].median:,.0f}" for name in ("p50_us", "p99_us", "p999_us")),
            f"**{line.ratio.median:.2f}x** ({line.ratio.min:.2f}-{line.ratio.max:.2f})"
            if line.ratio
            else "",
            f"{line.target:.2f}x {'met' if line.met else 'short'}"
            if line.target is not None and line.ratio
            else "",
        ]
        table.append(f"| {' | '.join(cells)} |")
    return table


def _markdown_growth(lines: list[GrowthLine]) -> list[str]:
    case = lines[0].case
    heads = " | ".join(case.figures.values())
    table = [
        f"| | {case.things} | {heads} | growth | at most |",
        f"|---|--:|{'--:|' * len(case.figures)}--:|--:|",
    ]
    for line in lines:
        cells = [
            PEERS[line.peer].about if case.connections else line.peer,
            f"{line.count:,}",
            *(f"{s.median:,.2f} ({s.min:,.2f}-{s.max:,.2f})" for s in line.figures.values()),
            f"**{line.growth.median:.2f}x** ({line.growth.min:.2f}-{line.growth.max:.2f})"
            if line.growth
            else "",
            "" if line.met is None else f"{case.most_growth:.2f}x {'met' if line.met else 'short'}",
        ]
        table.append(f"| {' | '.join(cells)} |")
    return table


def _origin(results: Results) -> str:
    m = results.machine
    return (
        f"`{results.command}` on {m['cpu']}, {m['cores']} cores, {m['kernel']}, {m['python']}; "
        f"{results.options['rounds']} rounds of {results.options['seconds']} s. "
        "Medians (smallest-largest); ratios are taken within a round."
    )

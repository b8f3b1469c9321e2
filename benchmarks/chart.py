"""Draws the run as one picture: CPU microseconds a message, a panel for each case.

Each case has a scale of its own, because a 16 KiB echo and a 64-byte one have little to say to
each other, and a broadcast to neither; the bars within a panel do. Less is better everywhere.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.cases import CASES, GROWTH_CASES, IDLE_CASES
from benchmarks.report import Results

COLUMNS = 2
BARS = 5  # a panel has room for so many, so that bars are equally thick everywhere
SUBJECT = "#1f6f78"
FLOOR = "#9aa5a6"
OTHER = "#e0a458"
INK = "#22302f"
FAINT = "#5b6a69"


def _color(peer: str) -> str:
    if peer.startswith("gevffi"):
        return SUBJECT
    return FLOOR if peer.startswith("c-epoll") else OTHER


def _panel(
    axes: Axes,
    title: str,
    about: str,
    bars: list[tuple[str, float, float, float, str]],
) -> None:
    """Draw bars of (peer, value, smallest, largest, label), the first on top."""
    names = [bar[0] for bar in bars]
    values = [bar[1] for bar in bars]
    below = [bar[1] - bar[2] for bar in bars]
    above = [bar[3] - bar[1] for bar in bars]
    places = range(len(bars))
    axes.barh(places, values, color=[_color(name) for name in names], height=0.68)
    if any(below) or any(above):
        axes.errorbar(
            values, places, xerr=[below, above], fmt="none", ecolor=INK, elinewidth=1, capsize=2.5
        )
    reach = max(bar[3] for bar in bars)
    for place, bar in zip(places, bars, strict=True):
        axes.text(bar[3] + reach * 0.025, place, bar[4], va="center", fontsize=8.5, color=INK)
    axes.set_yticks(list(places), names, fontsize=9)
    axes.set_ylim(max(len(bars), BARS) - 0.5, -0.5)
    axes.set_xlim(0, reach * 1.42)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=18)
    axes.text(0, 1.03, about, transform=axes.transAxes, fontsize=8.5, color=FAINT, in_layout=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=FAINT)
    axes.grid(axis="x", color="#e4e8e7", linewidth=0.8)
    axes.set_axisbelow(True)


def draw(results: Results, path: Path) -> None:
    """Write the chart as a PNG."""
    panels: list[tuple[str, str, list[tuple[str, float, float, float, str]]]] = []
    lines = results.lines()
    for case in CASES.values():
        bars = []
        for line in (line for line in lines if line.case is case):
            cpu = line.figures["cpu_us_per_message"]
            label = f"{cpu.median:.2f} µs"
            if line.ratio:
                unit = " rate" if case.by_rate else ""
                label += f"   {line.ratio.median:.2f}x{unit}"
            bars.append((line.peer, cpu.median, cpu.min, cpu.max, label))
        if bars:
            panels.append((case.name, case.about, bars))
    for idle_case in IDLE_CASES.values():
        idle = [
            (s.peer, value, value, value, f"{value:,.0f} B   {s.cpu_share:.1%} CPU")
            for s in results.idle
            if s.case == idle_case.name
            for value in [s.bytes_per_connection]
        ]
        if idle:
            about = f"{idle_case.about}: memory in bytes for each, CPU of the server"
            panels.append((idle_case.name, about, idle))
    grown = results.growth_lines()
    for growth_case in GROWTH_CASES.values():
        bars = [
            (f"{line.peer}, {line.count:,}", cpu.median, cpu.min, cpu.max, f"{cpu.median:.2f} µs")
            for line in grown
            if line.case is growth_case and line.peer == growth_case.subject
            for cpu in [line.figures[growth_case.flat]]
        ]
        if bars:
            panels.append((growth_case.name, growth_case.about, bars))
    rows = -(-len(panels) // COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(12, 2.7 * rows + 0.9), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, about, bars) in zip(grid.flat, panels, strict=False):
        _panel(axes, title, about, bars)
    figure.suptitle(
        "What a message costs: server CPU microseconds, less is better\n",
        fontsize=14,
        x=0.01,
        ha="left",
        color=INK,
    )
    figure.supxlabel(
        f"{results.machine['cpu']}, {results.machine['kernel']}, {results.machine['python']}; "
        f"medians of {results.options['rounds']} interleaved rounds, whiskers from smallest\nto "
        "largest; 1.20x: the first server of the panel does 1.20 times as much per CPU second",
        fontsize=8.5,
        color=FAINT,
    )
    figure.savefig(path, dpi=130, facecolor="white")
    plt.close(figure)

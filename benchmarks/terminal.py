"""Shows a run on the terminal: a progress bar while it goes, tables when it is over.

The bar is drawn between measurements only: a thread that redraws it ten times a second would run
on the cores that are being measured.
"""

from __future__ import annotations

from types import TracebackType

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.cases import CASES, GROWTH_CASES, IDLE_CASES, Case, GrowthCase, IdleCase
from benchmarks.report import Results
from benchmarks.summary import GrowthLine, IdleLine, Line, Spread


class Bar:
    """A progress bar over a known number of measurements."""

    def __init__(self, console: Console, steps: int) -> None:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        self._progress = Progress(*columns, console=console, auto_refresh=False, transient=True)
        self._task = self._progress.add_task("", total=steps, completed=-1)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, words: str) -> None:
        """The measurement before is done; `words` say what comes next."""
        self._progress.update(self._task, advance=1, description=words, refresh=True)


def show(console: Console, results: Results) -> None:
    """Print a table for each case, what is absent, and what fell short."""
    lines = results.lines()
    for case in CASES.values():
        if own := [line for line in lines if line.case is case]:
            console.print(_case_table(case, own), "")
    idle = results.idle_lines()
    for idle_case in IDLE_CASES.values():
        if watched := [line for line in idle if line.case is idle_case]:
            console.print(_idle_table(idle_case, watched), "")
    growth = results.growth_lines()
    for growth_case in GROWTH_CASES.values():
        if beside := [line for line in growth if line.case is growth_case]:
            console.print(_growth_table(growth_case, beside), "")
    for remark in results.remarks():
        console.print(f"[yellow]{escape(remark)}[/]", highlight=False)
    short = results.shortfalls()
    for sentence in short:
        console.print(f"[red]short of target:[/] {escape(sentence)}", highlight=False)
    verdicts = [line.met for line in lines]
    verdicts += [line.met for line in idle] + [line.met for line in growth]
    met = verdicts.count(True)
    if met and not short:
        console.print(f"[green]all {met} targets met[/]", highlight=False)


def _spread(spread: Spread, digits: int = 0, scale: float = 1, unit: str = "") -> str:
    """The median, and under it the smallest and the largest if there was more than one round."""
    median, low, high = (
        f"{value / scale:,.{digits}f}{unit}" for value in (spread.median, spread.min, spread.max)
    )
    return median if spread.min == spread.max else f"{median}\n[dim]{low}-{high}[/]"


def _verdict(met: bool | None) -> str:
    return {None: "", True: "[green]met[/]", False: "[red]short[/]"}[met]


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.add_column("server", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _case_table(case: Case, lines: list[Line]) -> Table:
    heads = ("CPU µs/msg", "messages/s", "p50", "p99\np99.9", "ratio", "target")
    table = _table(f"{case.name}: {case.about}", *heads)
    compared = "second" if case.by_rate else "CPU second"
    table.caption = (
        f"latencies in µs; ratio: messages per {compared} of {case.subject} ÷ those of the server"
    )
    table.caption_justify = "left"
    for line in lines:
        table.add_row(
            line.peer,
            _spread(line.figures["cpu_us_per_message"], 2),
            _spread(line.figures["messages_per_second"], 0, 1000, "k"),
            f"{line.figures['p50_us'].median:.0f}",
            f"{line.figures['p99_us'].median:.0f}\n{line.figures['p999_us'].median:.0f}",
            _spread(line.ratio, 2) if line.ratio else "",
            f"{line.target:.2f}\n{_verdict(line.met)}" if line.target is not None else "",
            style="bold" if line.peer == case.subject else "",
        )
    return table


def _idle_table(case: IdleCase, lines: list[IdleLine]) -> Table:
    table = _table(f"{case.name}: {case.about}", "connections", "bytes each", "CPU", "target")
    for line in lines:
        s = line.sample
        limit = f"{case.max_bytes} B, 0 %\n{_verdict(line.met)}"
        table.add_row(
            s.peer,
            f"{s.connections:,}",
            f"{s.bytes_per_connection:,.0f}",
            f"{s.cpu_share:.2%}",
            limit if line.met is not None else "",
            style="" if line.met is None else "bold",
        )
    return table


def _growth_table(case: GrowthCase, lines: list[GrowthLine]) -> Table:
    heads = (case.things, *case.figures.values(), "growth", "at most")
    table = _table(f"{case.name}: {case.about}", *heads)
    table.caption = f"CPU µs; growth: {case.figures[case.flat]} ÷ the same beside the fewest"
    table.caption_justify = "left"
    for line in lines:
        limit = f"{case.most_growth:.2f}\n{_verdict(line.met)}"
        table.add_row(
            line.peer,
            f"{line.count:,}",
            *(
                _spread(spread, 2) if name == case.flat else f"{spread.median:.2f}"
                for name, spread in line.figures.items()
            ),
            _spread(line.growth, 2) if line.growth else "",
            limit if line.met is not None else "",
            style="bold" if line.peer == case.subject else "",
        )
    return table

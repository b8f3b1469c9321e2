"""The benchmark harness: rounds, statistics, reports, and a short run of the whole."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import build, chart, growth, idle, process, registry, report, run, terminal
from benchmarks.cases import CASES, GROWTH_CASES, IDLE_CASES, Case, GrowthCase
from benchmarks.errors import BenchmarkError
from benchmarks.samples import GrowthSample, IdleSample, Sample
from benchmarks.summary import (
    Spread,
    shortfalls,
    summarise,
    summarise_growth,
    summarise_idle,
)


def test_a_peer_that_is_not_there_says_why() -> None:
    absent = registry.Peer("none", "", (), requires="no_such_module").absent()
    assert absent == "ModuleNotFoundError: No module named 'no_such_module'"
    assert registry.PEERS["asyncio"].absent() is None


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_case_names_peers_that_there_are(case: Case) -> None:
    assert set(case.peers) <= set(registry.PEERS)
    assert set(case.targets) <= set(case.peers) - {case.subject}


def test_a_broadcast_is_told_from_an_echo() -> None:
    assert CASES["broadcast-500x128B"].about == "each 128 B to 500 connections, depth 1"


def test_rounds_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(case: Case, peer: str, number: int, *_: Any) -> Sample:
        return sample(case.name, peer, number, 1, 1)

    monkeypatch.setattr(run, "measure", measure)
    said: list[str] = []
    cores = process.Cores.available()
    samples = run.run_case(CASES["100x64B"], ["a", "b", "c"], 3, 1, 0, cores, said.append)
    assert [(s.round, s.peer) for s in samples] == [
        *((0, peer) for peer in "abc"),
        *((1, peer) for peer in "bca"),
        *((2, peer) for peer in "cab"),
    ]
    assert said[-1] == "100x64B  b  round 3/3"


def test_idle_connections_are_weighed() -> None:
    cores = process.Cores.available()
    found = idle.measure_idle(IDLE_CASES["idle"], "asyncio", 200, 0.05, cores)
    assert found.connections == 200
    assert 200 < found.bytes_per_connection < 20_000
    assert found.seconds >= 0.05


def test_idle_connections_need_files() -> None:
    assert idle.connections_allowed(15_000, 20_000) == 15_000
    assert idle.connections_allowed(15_000, 1_024) == 824


# ---- growth ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GROWTH_CASES.values(), ids=list(GROWTH_CASES))
def test_a_growth_case_names_peers_that_there_are(case: GrowthCase) -> None:
    assert set(case.peers) <= set(registry.PEERS)
    assert list(case.counts) == sorted(set(case.counts))


@pytest.mark.parametrize("peer", GROWTH_CASES["timers"].peers)
def test_a_turn_is_measured_beside_timers(peer: str) -> None:
    if (why := registry.PEERS[peer].absent()) is not None:
        pytest.skip(why)
    case = GROWTH_CASES["timers"]
    cores = process.Cores.available()
    found = growth.run_growth(case, [peer], 1, (0, 50), 0.05, cores, lambda words: None)
    assert [(s.peer, s.round, s.count) for s in found] == [(peer, 0, 0), (peer, 0, 50)]
    for sample in found:
        assert set(sample.figures) == set(case.figures)
        assert min(sample.figures.values()) > 0


@pytest.mark.parametrize("peer", GROWTH_CASES["idle-timers"].peers)
def test_an_echo_is_measured_beside_silent_connections(peer: str) -> None:
    build.build("echoload")
    case = GROWTH_CASES["idle-timers"]
    cores = process.Cores.available()
    found = growth.run_growth(case, [peer], 1, (5, 20), 0.05, cores, lambda words: None)
    assert [(s.peer, s.round, s.count) for s in found] == [(peer, 0, 5), (peer, 0, 20)]
    for sample in found:
        assert set(sample.figures) == set(case.figures)
        assert sample.figures["turn_us"] > 0


def test_timers_that_fail_say_why() -> None:
    cores = process.Cores.available()
    with pytest.raises(BenchmarkError, match="no such loop: trio"):
        growth.measure_growth(GROWTH_CASES["timers"], "trio", 0, (0,), 0.05, cores)


# ---- statistics and reports --------------------------------------------------------------------


def sample(case: str, peer: str, number: int, rate: float, cpu: float) -> Sample:
    """A made-up sample: `rate` messages in a second that cost the server `cpu` seconds."""
    return Sample(case, peer, number, int(rate), int(rate), 1.0, cpu, 0.5, 10, 20, 30, 40)


def made_up() -> report.Results:
    """Three rounds of one case, with an outlier that a ratio of medians would fall for."""
    name = "100x64B"
    samples = [
        *(sample(name, "gevffi", n, 100_000, cpu) for n, cpu in enumerate((0.5, 0.5, 1.0))),
        *(sample(name, "uvloop", n, 100_000, cpu) for n, cpu in enumerate((0.6, 1.0, 1.2))),
        *(sample(name, "c-epoll", n, 100_000, 0.4) for n in range(2)),
    ]
    idle_samples = [
        IdleSample("idle", "gevffi", 1000, 500_000, 0.0, 2.0),
        IdleSample("idle", "uvloop", 1000, 900_000, 0.5, 2.0),
        IdleSample("ws-idle", "picows", 1000, 28_000_000, 0.0, 2.0),
    ]
    machine: dict[str, object] = {"cpu": "CPU", "cores": 2, "kernel": "Linux", "python": "CPython"}
    options: dict[str, object] = {"rounds": 3, "seconds": 1.0}
    absent = {"asyncio": "no [such] module"}
    return report.Results(
        machine, "cmd", options, absent, ["a note"], samples, idle_samples, grown()
    )


def grown() -> list[GrowthSample]:
    """Three rounds of timers: a second one is dearer than the first, and none is the cheapest."""
    costs = {0: (1.0, 1.0, 1.0), 1000: (2.0, 2.0, 4.0), 100_000: (2.0, 3.0, 6.0)}
    return [
        GrowthSample(
            *("timers", peer, number, count),
            {"turn_us": cost, "add_us": number + 1.5, "cancel_us": 0.25, "fire_us": 0.5},
        )
        for peer in ("asyncio", "gevffi")
        for count in sorted(costs, reverse=True)
        for number, cost in enumerate(costs[count])
    ]


def test_a_spread_is_median_and_ends() -> None:
    assert Spread.of([3, 1, 2, 10]) == Spread(2.5, 1, 10)
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])


def test_ratios_are_taken_within_a_round() -> None:
    lines = {line.peer: line for line in summarise(CASES["100x64B"], made_up().samples)}
    assert list(lines) == ["gevffi", "c-epoll", "uvloop"]
    assert lines["gevffi"].ratio is None
    uvloop = lines["uvloop"].ratio
    assert uvloop is not None
    assert (uvloop.min, uvloop.median, uvloop.max) == pytest.approx((1.2, 1.2, 2.0))
    assert lines["uvloop"].met is True
    floor = lines["c-epoll"]
    assert floor.ratio is not None
    assert floor.ratio.median == pytest.approx(0.8)
    assert (floor.rounds, floor.target, floor.met) == (2, 0.97, False)


def test_without_the_subject_there_is_no_ratio() -> None:
    case = CASES["100x64B"]
    (line,) = summarise(case, [sample(case.name, "uvloop", 0, 1000, 0.5)])
    assert (line.ratio, line.met) == (None, None)


def test_two_cores_are_compared_by_rate() -> None:
    case = CASES["1000x64B-two-cores"]
    samples = [
        sample(case.name, "gevffi", 0, 4000, 1.0),
        sample(case.name, "socketserver", 0, 1000, 0.1),
    ]
    line = summarise(case, samples)[1]
    assert line.ratio == Spread(4.0, 4.0, 4.0)
    assert line.met is True


def test_an_idle_server_must_be_small_and_quiet() -> None:
    case = IDLE_CASES["idle"]

    def met(memory: int, cpu: float) -> bool | None:
        (line,) = summarise_idle(case, [IdleSample("idle", "gevffi", 1000, memory, cpu, 2.0)])
        return line.met

    assert met(640_000, 0.0) is True
    assert met(641_000, 0.0) is False
    assert met(640_000, 0.1) is False
    (other,) = summarise_idle(case, [IdleSample("idle", "uvloop", 1, 10**6, 2.0, 2.0)])
    assert other.met is None


def test_growth_is_measured_against_the_fewest_there_are_any_of() -> None:
    lines = summarise_growth(GROWTH_CASES["timers"], grown())
    assert [(line.peer, line.count, line.met) for line in lines] == [
        *(("gevffi", 0, None), ("gevffi", 1000, None), ("gevffi", 100_000, False)),
        *(("asyncio", 0, None), ("asyncio", 1000, None), ("asyncio", 100_000, None)),
    ]
    assert [line.growth for line in lines[:3]] == [None, None, Spread(1.5, 1.0, 1.5)]
    assert lines[1].figures["turn_us"] == Spread(2.0, 2.0, 4.0)
    assert lines[1].rounds == 3


def test_what_falls_short_is_said() -> None:
    results = made_up()
    assert results.shortfalls() == [
        "100x64B: 0.800x of c-epoll, target 0.97x",
        "timers: 1.50x the CPU of a turn beside 100,000 timers, at most 1.25x",
    ]
    sample = IdleSample("idle", "gevffi", 1000, 1_000_000, 1.0, 2.0)
    assert shortfalls([], summarise_idle(IDLE_CASES["idle"], [sample]), []) == [
        "idle: 1000 bytes a connection (at most 640), 50.00% of a core (at most 0.1%)"
    ]


def test_the_report_is_written(tmp_path: Path) -> None:
    results = made_up()
    folder = tmp_path / "a" / "b"
    report.write(results, folder)

    everything = json.loads((folder / "results.json").read_text())
    assert len(everything["samples"]) == 8
    assert everything["samples"][0]["cpu_us_per_message"] == pytest.approx(5)
    assert everything["absent"] == results.absent
    assert [s["met"] for s in everything["summary"]] == [None, False, True]

    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["peer"]) for row in rows] == [
        *(("100x64B", peer) for peer in ("gevffi", "c-epoll", "uvloop")),
        *(("idle", peer) for peer in ("gevffi", "uvloop")),
        ("ws-idle", "picows"),
        *(("timers", "gevffi"),) * 3,
        *(("timers", "asyncio"),) * 3,
    ]
    assert float(rows[2]["ratio_median"]) == pytest.approx(1.2)
    assert rows[3]["idle_bytes_per_connection"] == "500.0"
    assert [row["met"] for row in rows[3:6]] == ["True", "", ""]
    assert [row["count"] for row in rows[5:9]] == ["", "0", "1000", "100000"]
    assert [row["growth_median"] for row in rows[6:9]] == ["", "", "1.5"]
    assert (rows[8]["turn_us_max"], rows[8]["target"], rows[8]["met"]) == ("6.0", "1.25", "False")
    assert len(everything["growth"]["samples"]) == 18
    assert everything["growth"]["summary"][2]["growth"]["median"] == 1.5

    table = (folder / "table.md").read_text()
    assert "| uvloop Protocol | 10.00 (6.00-12.00) |" in table
    assert "**1.20x** (1.20-2.00) | 1.15x met |" in table
    assert "| picows on uvloop | 1,000 | 28,000 | 0.00% |" in table.split("**ws-idle**")[1]
    assert "* short of target: 100x64B: 0.800x of c-epoll" in table
    assert "* not measured: asyncio (no [such] module)" in table
    assert "| gevffi | 100,000 | 3.00 (2.00-6.00) |" in table
    assert "| **1.50x** (1.00-1.50) | 1.25x short |" in table
    for part in (table.split("**idle**")[0], table.split("**timers**")[1]):
        assert len({line.count("|") for line in part.splitlines() if "|" in line}) == 1


def test_the_terminal_shows_everything() -> None:
    out = io.StringIO()
    terminal.show(Console(file=out, width=80), made_up())
    shown = out.getvalue()
    seen = ("5.00-10.00", "1.20-2.00", "short", "no [such] module", "a note", "0.800x", "100,000")
    for words in seen:
        assert words in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_the_chart_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    chart.draw(made_up(), path)
    assert path.read_bytes().startswith(b"\x89PNG")


# ---- the whole ---------------------------------------------------------------------------------


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks`."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=process.ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_a_run_from_end_to_end(tmp_path: Path) -> None:
    cases = {
        "10x16KiB": ["c-epoll", "gevffi"],
        "broadcast-500x128B": ["c-epoll-broadcast", "gevffi-broadcast"],
    }
    peers = [peer for there in cases.values() for peer in there]
    chosen = ("--case", *cases, "timers", "--peer", *peers)
    result = benchmarks("--quick", "--rounds=1", *chosen, "--seconds=0.1", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "chart.png",
        "results.csv",
        "results.json",
        "table.md",
    ]
    found = json.loads((tmp_path / "results.json").read_text())
    measured = [(case, peer) for case, there in cases.items() for peer in there]
    assert sorted((s["case"], s["peer"]) for s in found["samples"]) == sorted(measured)
    summary = found["growth"]["summary"]
    assert [(line["peer"], line["count"]) for line in summary] == [
        ("gevffi", count) for count in (0, 1000, 10_000, 100_000)
    ]
    assert summary[-1]["growth"]["median"] > 0


def test_a_run_with_nothing_to_do_fails(tmp_path: Path) -> None:
    result = benchmarks("--case", "framed-64B", "--peer", "asyncio", f"--output={tmp_path}")
    assert result.returncode == 1
    assert "nothing to measure" in result.stderr

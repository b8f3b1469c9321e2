"""The processes of a measurement: started, pinned, watched, and ended whatever happens."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import process
from benchmarks.errors import BenchmarkError


def script(text: str) -> list[str]:
    """A server written in a line or two."""
    return [sys.executable, "-c", text]


LISTENING = "import signal; print('listening on 127.0.0.1:1', flush=True); "
CORES = frozenset(os.sched_getaffinity(0))


def gone(pid: int) -> bool:
    """Whether the process is no more: neither running nor waiting to be collected."""
    return not Path(f"/proc/{pid}").exists()


def test_a_server_runs_on_its_cores_and_ends_with_the_block() -> None:
    core = frozenset([min(CORES)])
    with process.serving("it", script(LISTENING + "signal.pause()"), core) as server:
        assert server.port == 1
        assert os.sched_getaffinity(server.pid) == core
    assert gone(server.pid)


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, ZeroDivisionError])
def test_a_server_ends_however_the_block_is_left(exception: type[BaseException]) -> None:
    pids = []

    def leave() -> None:
        with process.serving("it", script(LISTENING + "signal.pause()"), CORES) as server:
            pids.append(server.pid)
            raise exception

    with pytest.raises(exception):
        leave()
    assert gone(pids[0])


def test_a_server_that_ignores_sigterm_is_killed_and_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "STOP_SECONDS", 0.1)
    text = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LISTENING}"
    command = script(f"{text}\nwhile True: signal.pause()")
    with (
        pytest.raises(BenchmarkError, match="it: did not end within"),
        process.serving("it", command, CORES) as server,
    ):
        pass
    assert gone(server.pid)


def test_half_a_port_is_no_port() -> None:
    assert process.port_in(b"listening on 127.0.0.1:12") is None
    assert process.port_in(b"hello\nlistening on 127.0.0.1:1234\n") == 1234


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("raise SystemExit('no luck')", r"it: ended before it listened \(exit status 1\)\nno luck"),
        ("print('listening elsewhere', flush=True)", "it: ended before it listened"),
    ],
)
def test_a_server_that_does_not_start_says_why(text: str, complaint: str) -> None:
    with (
        pytest.raises(BenchmarkError, match=complaint),
        process.serving("it", script(text), CORES),
    ):
        pass


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_SECONDS", 0.1)
    monkeypatch.setattr(process, "DYING_SECONDS", 0.0)
    with (
        pytest.raises(BenchmarkError, match="did not say where it listens"),
        process.serving("it", script("import signal; signal.pause()"), CORES),
    ):
        pass


def test_a_server_that_dies_under_the_load_is_reported() -> None:
    with (
        pytest.raises(BenchmarkError, match=r"it: died \(exit status 3\)"),
        process.serving("it", script(LISTENING + "raise SystemExit(3)"), CORES) as server,
    ):
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)


def test_a_killed_harness_leaves_no_server() -> None:
    harness = subprocess.Popen(
        script(
            "import sys, time; from benchmarks.process import serving\n"
            f"with serving('it', {script(LISTENING + 'signal.pause()')!r}, {CORES!r}) as server:\n"
            "    print(server.pid, flush=True); time.sleep(60)"
        ),
        cwd=process.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert harness.stdout is not None
    with harness.stdout:
        pid = int(harness.stdout.readline())
        ended = os.pidfd_open(pid)
        try:
            harness.send_signal(signal.SIGKILL)
            harness.wait(10)
            assert select.select([ended], [], [], 10)[0]
        finally:
            os.close(ended)


def test_the_cpu_clock_is_the_kernels() -> None:
    before = time.process_time()
    seen = process.cpu_seconds(os.getpid())
    assert before <= seen <= time.process_time()


def test_memory_is_counted() -> None:
    before = process.pss_bytes(os.getpid())
    kept = bytearray(b"x" * 2**20) * 64
    # Half of it: meanwhile the interpreter may have given something else back.
    assert process.pss_bytes(os.getpid()) - before >= len(kept) / 2

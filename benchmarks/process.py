"""Starting, pinning, watching and ending the processes of a measurement.

Every child runs in its own session, so that Ctrl-C reaches only the harness, which then ends its
children one by one; and every child asks the kernel to be killed when the harness dies
(PR_SET_PDEATHSIG, prctl(2)), so that not even `kill -9` leaves a server behind.

CPU time is read from the kernel's process clock, which counts every thread the process ever had.
Adding up /proc/PID/task would lose the threads that have ended, and `socketserver` ends one for
each connection.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

START_SECONDS = 20.0
STOP_SECONDS = 5.0
DYING_SECONDS = 0.5
ROOT = Path(__file__).resolve().parent.parent

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_LISTENING = re.compile(rb"listening on 127\.0\.0\.1:(\d+)\n")


@dataclass(frozen=True)
class Cores:
    """The CPU cores of a measurement: one set for the server, another for the load."""

    server: frozenset[int]
    load: frozenset[int]

    @classmethod
    def available(cls) -> Cores:
        """The last core this process may use for the server, the first for the load."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(server=frozenset(allowed[-1:]), load=frozenset(allowed[:1]))

    @property
    def shared(self) -> bool:
        """Whether there is only one core, which server and load have to share."""
        return self.server == self.load

    def unpinned(self) -> Cores:
        """Server and load may both use the cores of either."""
        return Cores(server=self.server | self.load, load=self.server | self.load)


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    name: str
    pid: int
    port: int


def raise_file_limit() -> int:
    """Allow as many descriptors as the hard limit does, here and in children; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def cpu_seconds(pid: int) -> float:
    """CPU time that process `pid` has used, user and system, ended threads included."""
    # What clock_getcpuclockid(3) computes: the inverted id, and 2 for the scheduler's clock.
    return time.clock_gettime((~pid << 3) | 2)


def pss_bytes(pid: int) -> int:
    """Memory of process `pid`, its share of shared pages only (proc_pid_smaps_rollup(5)).

    Pages of files, programs and libraries that is, are left out: the share of those changes when
    another process begins or ends that has them too.
    """
    kinds = dict(
        line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    try:
        return (int(kinds["Pss_Anon:"]) + int(kinds["Pss_Shmem:"])) * 1024
    except KeyError as exc:
        raise BenchmarkError(f"/proc/{pid}/smaps_rollup has no {exc} line") from None


def spawn(
    command: Sequence[str], cores: frozenset[int], output: int, errors: int
) -> subprocess.Popen[bytes]:
    """Start `command` on `cores`, in a session of its own, bound to the harness's life."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        os.sched_setaffinity(0, cores)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        cwd=ROOT,
        preexec_fn=prepare,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> bool:
    """End a child: SIGTERM, and SIGKILL when that did not do. True when SIGTERM did."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


@contextlib.contextmanager
def serving(name: str, command: Sequence[str], cores: frozenset[int]) -> Iterator[Running]:
    """Run a server while the block runs.

    Raises:
        BenchmarkError: it did not say where it listens within `START_SECONDS`, it died while the
            block ran, or it had to be killed. What it wrote to stderr is in the message.
    """
    with tempfile.TemporaryFile() as errors:
        process = spawn(command, cores, subprocess.PIPE, errors.fileno())
        assert process.stdout is not None
        ended_well = True
        try:
            with process.stdout:
                yield Running(name, process.pid, _port_of(process))
        except BenchmarkError as exc:
            raise BenchmarkError(f"{name}: {exc}{_story(process, errors.fileno())}") from exc
        else:
            if process.poll() is not None:
                raise BenchmarkError(f"{name}: died{_story(process, errors.fileno())}")
        finally:
            ended_well = end(process)
        if not ended_well:
            raise BenchmarkError(f"{name}: did not end within {STOP_SECONDS:g} s of SIGTERM")


def port_in(said: bytes) -> int | None:
    """The port in the line that says where a server listens, or None while it is incomplete."""
    match = _LISTENING.search(said)
    return int(match[1]) if match else None


def _port_of(process: subprocess.Popen[bytes]) -> int:
    """Read the port from the line the server prints once it listens."""
    assert process.stdout is not None
    said = b""
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                break
            more = os.read(process.stdout.fileno(), 4096)
            said += more
            if (port := port_in(said)) is not None:
                return port
            if not more:
                process.wait(STOP_SECONDS)
                raise BenchmarkError("ended before it listened")
    raise BenchmarkError(f"did not say where it listens within {START_SECONDS:g} s")


def _story(process: subprocess.Popen[bytes], errors: int) -> str:
    """The exit status of a server that has ended, and the end of what it wrote to stderr."""
    # A process that is dying closes its connections a moment before its status is known.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(DYING_SECONDS)
    status = "" if process.returncode is None else f" (exit status {process.returncode})"
    size = os.fstat(errors).st_size
    text = os.pread(errors, 2000, max(0, size - 2000)).decode(errors="replace").strip()
    return f"{status}\n{text}" if text else status

"""Runs the suite: as a client against a server, or as a server against a client.

    the suite is a client                        the suite is a server
    server --- "listening on" ---> here          here --- ws://127.0.0.1:PORT ---> client program
    here   --- its address ------> suite         client --- case 1, case 2, ... --> suite
    suite  --- index.json -------> here          suite  --- index.json ----------> here

The suite writes its report when it has come to the end: as a client by itself, as a server when it
is told to (`/updateReports`). A peer that hangs would keep it from ever coming there; so a run has
a number of seconds, and says which case it was at when they are over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.process import end, serving, spawn
from compliance.errors import ComplianceError

AGENT = "gevffi"
START_SECONDS = 20.0
EVERYWHERE = frozenset(os.sched_getaffinity(0))

_LIST = re.compile(r"^Cases = \[(.*)\]$", re.MULTILINE)
_CASE = re.compile(r"\d+(?:\.\d+)+")
_RANGE = re.compile(r"(\d+)-(\d+)\.\*")


def patterns(text: str) -> list[str]:
    """Split the words of `--cases`: "1-3.*,12.1.1" means 1.*, 2.*, 3.* and 12.1.1.

    Raises:
        ValueError: a word is neither a case, nor cases ending in a star, nor a range of sections.
    """
    found: list[str] = []
    for word in text.split(","):
        if match := _RANGE.fullmatch(word):
            found += [f"{number}.*" for number in range(int(match[1]), int(match[2]) + 1)]
        elif re.fullmatch(r"\d+(\.\d+)*(\.\*)?", word) or word == "*":
            found.append(word)
        else:
            raise ValueError(f"cases are named as in 1-7.*,9.1.*,12.1.1, not {word!r}")
    return found


class Run:
    """One run of the suite: where it is, what it may do, where its report goes.

    Args:
        programs: the folder with the suite's programs, see `environment.prepare`.
        output: the folder for the report; emptied first.
        cases: the patterns that select the cases.
        seconds: how long the run may take.
    """

    def __init__(self, programs: Path, output: Path, cases: Sequence[str], seconds: float) -> None:
        self.programs = programs
        self.output = output
        self.cases = list(cases)
        self.seconds = seconds
        self.log = output / "suite.log"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)

    @property
    def index(self) -> Path:
        """The report."""
        return self.output / "index.json"

    def wanted(self) -> list[str]:
        """The cases the suite took the patterns to mean.

        Raises:
            ComplianceError: it did not come so far as to say, or there are none.
        """
        said = _LIST.search(self._said())
        if not said or not (cases := _CASE.findall(said[1])):
            raise ComplianceError(f"the suite ran no cases\n{self._said()[-2000:].strip()}")
        return cases

    def against_server(self, command: Sequence[str]) -> None:
        """Start a server with `command` and let the suite be its client.

        Raises:
            ComplianceError: the suite did not come to its end in time.
            BenchmarkError: the server did not start, or died.
        """
        with serving("the server", command, EVERYWHERE) as server:
            url = f"ws://127.0.0.1:{server.port}"
            spec = {"servers": [{"agent": AGENT, "url": url}]}
            with self._suite("fuzzingclient", spec) as suite:
                self._wait("the suite", suite)

    def against_client(self, module: str) -> None:
        """Let the suite be a server and run the client program `module`.

        Raises:
            ComplianceError: the suite did not start, or the client failed or did not end in time.
        """
        port = _free_port()
        url = f"ws://127.0.0.1:{port}"
        with self._suite("fuzzingserver", {"url": url}, "--webport", "0") as suite:
            self._listens(port, suite)
            client = spawn([sys.executable, "-m", module, url, AGENT], EVERYWHERE, 2, 2)
            try:
                self._wait(f"the client {module}", client)
            finally:
                if client.poll() is None:
                    end(client)

    @contextmanager
    def _suite(
        self, mode: str, spec: dict[str, Any], *arguments: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run the suite's program while the block runs."""
        file = self.output / "spec.json"
        file.write_text(json.dumps({**spec, "outdir": str(self.output), "cases": self.cases}))
        # Unbuffered, so that the log says which case it is at when it has to be ended.
        program = [self.programs / "python", "-u", self.programs / "wstest"]
        command = [*program, "--mode", mode, "--spec", file, *arguments]
        with self.log.open("wb") as log:
            suite = spawn([str(word) for word in command], EVERYWHERE, log.fileno(), log.fileno())
            try:
                yield suite
            finally:
                if suite.poll() is None:
                    end(suite)

    def _wait(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a process that has to end well, and in time."""
        try:
            status = process.wait(self.seconds)
        except subprocess.TimeoutExpired:
            raise ComplianceError(
                f"{name} was not done after {self.seconds:g} s; {self._last()}"
            ) from None
        if status != 0:
            raise ComplianceError(f"{name} ended with status {status}; {self._last()}")

    def _listens(self, port: int, suite: subprocess.Popen[bytes]) -> None:
        """Wait until the suite listens; it does not say so."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and suite.poll() is None:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise ComplianceError(f"the suite does not listen\n{self._said()[-2000:].strip()}")

    def _said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _last(self) -> str:
        lines = self._said().strip().splitlines()
        return f"the suite's last words: {lines[-1] if lines else 'none'} (all: {self.log})"


def _free_port() -> int:
    """A port that is free now; the suite can only be told one."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

"""`python -m benchmarks.demo` (what `make demo` calls): gevffi beside the standard library.

Starts the gevffi echo server and one of `socketserver`, one after the other, has each answer a
plain Python socket, drives both with the same load, checks every byte, and says what came out.
Needs nothing but gevffi, a C compiler and the standard library, and takes about ten seconds.
"""

from __future__ import annotations

import sys

from benchmarks.build import build
from benchmarks.cases import Case
from benchmarks.client import connect
from benchmarks.errors import BenchmarkError
from benchmarks.process import Cores, serving
from benchmarks.registry import PEERS
from benchmarks.run import drive
from benchmarks.samples import Sample

CASE = Case("demo", 100, 64, 1, peers=("gevffi", "socketserver"))
SECONDS = 3.0
WARMUP = 0.5


def try_out(name: str, cores: Cores) -> Sample:
    """Start the server `name`, greet it, drive it, and say so."""
    greeting = f"hello, {name}"
    print(f"{name:13} ", end="", flush=True)
    with serving(name, PEERS[name].command, cores.server) as server:
        print(f"listens on 127.0.0.1:{server.port}, process {server.pid}")
        connect(server, greeting.encode()).close()
        print(f"{'':13} answered a Python socket: {greeting!r}")
        print(f"{'':13} driving it for {SECONDS:g} s ... ", end="", flush=True)
        sample = Sample.from_load(
            CASE.name, name, 0, drive(server, CASE, SECONDS, WARMUP, cores.load)
        )
    print(f"{sample.messages:,} messages came back, every byte as it was sent")
    return sample


def compare(ours: Sample, theirs: Sample) -> str:
    """The two samples side by side."""
    rows = [
        ("", ours.peer, theirs.peer),
        ("messages a second", *(f"{s.messages_per_second:,.0f}" for s in (ours, theirs))),
        ("server CPU a message", *(f"{s.cpu_us_per_message:.2f} µs" for s in (ours, theirs))),
        ("half answered within", *(f"{s.p50_us:,.0f} µs" for s in (ours, theirs))),
        ("99 % answered within", *(f"{s.p99_us:,.0f} µs" for s in (ours, theirs))),
    ]
    times = ours.messages_per_cpu_second / theirs.messages_per_cpu_second
    return "\n".join(
        [
            *(f"{what:22}{one:>16}{other:>16}" for what, one, other in rows),
            "",
            f"A second of CPU carries {times:.2f} times as many messages through {ours.peer} as "
            f"through {theirs.peer}.",
            "One run on a machine that may be busy: `python -m benchmarks` measures with care.",
        ]
    )


def main() -> int:
    """Run; returns the exit status."""
    try:
        if (why := PEERS["gevffi"].absent()) is not None:
            raise BenchmarkError(
                f"gevffi cannot be used here ({why}); build it first: "
                "python setup.py build_ext --inplace"
            )
        build("echoload")
        cores = Cores.available()
        where = "share the only core" if cores.shared else "have a core each"
        print(f"Two echo servers under the same load: {CASE.about}. Server and load {where}.\n")
        samples = [try_out(name, cores) for name in CASE.peers]
    except BenchmarkError as exc:
        print(f"\ndemo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    print(f"\n{compare(*samples)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m compliance server|client`: runs the Autobahn|Testsuite and judges what came out.

Exit status: 0 every case is as it should be; 1 some are not; 2 a wrong argument; 3 not run,
because there is no CPython 2.7 here or the suite cannot be installed; 4 the run failed before there
was anything to judge.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.process import ROOT
from compliance import environment, report
from compliance.errors import ComplianceError, NotHereError
from compliance.suite import Run, patterns

GOOD, BAD, NOT_RUN, BROKEN = 0, 1, 3, 4

# What runs in half a minute and still goes through every section; --all takes a quarter of an hour.
SUBSET = "1-7.*,9.*,10.*,12.1.1,13.3.1"
# The largest message in the suite has 16 MiB.
SERVER = (
    f"{sys.executable} -m gevffi ws-echo --address 127.0.0.1:0 --loops 1 "
    f"--max-message-size {16 << 20}"
)


def _patterns(text: str) -> list[str]:
    try:
        return patterns(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m compliance", description=__doc__)
    parser.add_argument("side", choices=["server", "client"], help="which side is tested")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--cases", type=_patterns, default=patterns(SUBSET), metavar="LIST", help=SUBSET
    )
    which.add_argument(
        "--all", dest="cases", action="store_const", const=["*"], help="all 517 cases"
    )
    parser.add_argument(
        "--server",
        type=shlex.split,
        default=shlex.split(SERVER),
        metavar="COMMAND",
        help=f"an echo server that says 'listening on 127.0.0.1:PORT' ({SERVER})",
    )
    parser.add_argument(
        "--client",
        default="compliance.client",
        metavar="MODULE",
        help="a client program, run with the suite's URL and the agent's name (%(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=3600, metavar="S", help="the longest a run may take (3600)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / ".cache" / "compliance",
        metavar="DIR",
        help="where the suite is installed (.cache/compliance)",
    )
    parser.add_argument("--python27", type=Path, metavar="PATH", help="the CPython 2.7 to use")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where the report goes (CACHE/SIDE)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run; returns the exit status."""
    options = parse(arguments)
    cache = options.cache.resolve()
    output = (options.output or cache / options.side).resolve()
    try:
        run = Run(
            environment.prepare(cache, options.python27), output, options.cases, options.seconds
        )
        began = time.monotonic()
        if options.side == "server":
            run.against_server(options.server)
        else:
            run.against_client(options.client)
        took = time.monotonic() - began
        outcomes = report.read(run.index, run.wanted())
    except NotHereError as exc:
        print(f"compliance: NOT RUN: {exc}", file=sys.stderr)
        return NOT_RUN
    except (ComplianceError, BenchmarkError) as exc:
        print(f"compliance: {exc}", file=sys.stderr)
        return BROKEN
    except KeyboardInterrupt:
        print("compliance: stopped", file=sys.stderr)
        return 130
    text = report.summary(outcomes)
    (output / "summary.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)
    bad = sum(not outcome.good for outcome in outcomes)
    verdict = f"{bad} of {len(outcomes)} cases are not" if bad else f"all {len(outcomes)} cases are"
    print(f"\n{options.side}: {verdict} as they should be, after {took:.0f} s; report in {output}")
    return BAD if bad else GOOD


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What timers cost a loop: `python -m benchmarks.timers LOOP SECONDS COUNT...`, in a process alone.

For each COUNT, fewest first, so many timers are pending that are due in an hour or more. Then the
loop turns for SECONDS with nothing due, by a callback that asks to be called in the next turn. What
follows is done to `BATCH` timers more: they are made, for random times; made and cancelled; and
called, all in one turn. All of it is CPU time of the process. A line of JSON for each COUNT.

LOOP is gevffi, uvloop or asyncio. The script is the same for all: a generator, of which a step is
run in each turn.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

BATCH = 2000
HOUR = 3600.0
SETTLE_TURNS = 100
DUE_SECONDS = 0.005  # uvloop counts in milliseconds, and none is no timer


class _Script:
    """The steps, for any loop.

    Args:
        later: the loop's `call_later`.
        soon: makes a call in the next turn.
        stop: ends the loop.
    """

    def __init__(
        self,
        later: Callable[..., Any],
        soon: Callable[..., Any],
        stop: Callable[[], object],
        seconds: float,
        counts: Sequence[int],
    ) -> None:
        self._later = later
        self._soon = soon
        self._stop = stop
        self._seconds = seconds
        self._random = random.Random(1)
        self._steps = self._run(counts)

    def step(self) -> None:
        """Do what is next, and ask for another turn."""
        try:
            next(self._steps)
        except StopIteration:
            self._stop()
        except BaseException:
            self._stop()
            raise
        else:
            self._soon(self.step)

    def _make(self, count: int) -> list[Any]:
        """Timers that will not be due."""
        delays = [HOUR * (1 + self._random.random()) for _ in range(count)]
        later = self._later
        return [later(delay, len, "") for delay in delays]

    def _run(self, counts: Sequence[int]) -> Iterator[None]:
        pending: list[Any] = []
        for count in counts:
            pending += self._make(count - len(pending))
            gc.collect()
            for _ in range(SETTLE_TURNS):
                yield
            figures: dict[str, float] = {}
            for measure in (self._turns, self._adds, self._cancels, self._fires):
                yield from measure(figures)
            print(json.dumps({"count": count, "figures": figures}), flush=True)

    def _turns(self, figures: dict[str, float]) -> Iterator[None]:
        turns = 0
        end = time.monotonic() + self._seconds
        begin = time.process_time()
        while not turns or time.monotonic() < end:
            for _ in range(100):
                yield
            turns += 100
        figures["turn_us"] = (time.process_time() - begin) / turns * 1e6

    def _adds(self, figures: dict[str, float]) -> Iterator[None]:
        begin = time.process_time()
        timers = self._make(BATCH)
        figures["add_us"] = (time.process_time() - begin) / BATCH * 1e6
        yield from self._cancel(timers)

    def _cancels(self, figures: dict[str, float]) -> Iterator[None]:
        timers = self._make(BATCH)
        begin = time.process_time()
        yield from self._cancel(timers)
        figures["cancel_us"] = (time.process_time() - begin) / BATCH * 1e6

    def _cancel(self, timers: list[Any]) -> Iterator[None]:
        """Cancel them; a turn and an addition are when a loop may clear them away."""
        for timer in timers:
            timer.cancel()
        yield
        self._later(HOUR, len, "").cancel()
        yield

    def _fires(self, figures: dict[str, float]) -> Iterator[None]:
        called: list[None] = []
        for _ in range(BATCH):
            self._later(DUE_SECONDS, called.append, None)
        time.sleep(2 * DUE_SECONDS)
        begin = time.process_time()
        while len(called) < BATCH:
            yield
        figures["fire_us"] = (time.process_time() - begin) / BATCH * 1e6


def _run_gevffi(seconds: float, counts: Sequence[int]) -> None:
    import gevffi

    loop = gevffi.EventLoop()
    script = _Script(
        loop.call_later, loop.call_soon_threadsafe, lambda: loop.stop(0), seconds, counts
    )
    loop.call_soon_threadsafe(script.step)
    loop.run()


def _run_asyncio(loop: asyncio.AbstractEventLoop, seconds: float, counts: Sequence[int]) -> None:
    script = _Script(loop.call_later, loop.call_soon, loop.stop, seconds, counts)
    loop.call_soon(script.step)
    loop.run_forever()
    loop.close()


def main(kind: str, seconds: float, counts: Sequence[int]) -> None:
    """Measure one loop."""
    if kind == "gevffi":
        _run_gevffi(seconds, counts)
    elif kind == "uvloop":
        import uvloop

        _run_asyncio(uvloop.new_event_loop(), seconds, counts)
    elif kind == "asyncio":
        _run_asyncio(asyncio.new_event_loop(), seconds, counts)
    else:
        raise SystemExit(f"no such loop: {kind}")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), [int(count) for count in sys.argv[3:]])

"""What the C layer's results become in Python: numbers, exceptions, and calls taken up again.

Every C function returns a count or `-errno`. `check` turns the second into the `OSError` subclass
that Python has for it, with the name of the call in front, because "Bad file descriptor" alone says
nothing about who was handed it.

A signal ends a blocking call with `EINTR`. The two `retry` functions do what :pep:`475` asks of the
standard library: the Python-level handler runs first (the interpreter calls it between the steps of
these loops, on the main thread), then the call is taken up again for what is left of its time-out.
A handler that raises ends the call with its exception.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable
from typing import Any

_INT_MAX = 2**31 - 1


def check(result: int, call: str) -> int:
    """Return `result`, or raise it as an `OSError` naming `call` when it is a negative errno."""
    if result < 0:
        raise OSError(-result, f"{call}: {os.strerror(-result)}")
    return result


def retry(call: str, function: Callable[..., int], *arguments: Any) -> int:
    """Return `function(*arguments)`, called again for as long as signals interrupt it.

    Raises:
        OSError: the function failed otherwise; the message starts with `call`.
    """
    while (result := function(*arguments)) == -errno.EINTR:
        pass
    return check(result, call)


def retry_wait(
    call: str, timeout: float | None, function: Callable[..., int], *arguments: Any
) -> int:
    """Return `function(*arguments, milliseconds)`, taken up again after signals.

    Args:
        call: the name to put into errors.
        timeout: seconds; `None` waits for ever. A part of a millisecond counts as a whole one, so
            that a wait never ends before its time. The kernel counts 24 days at most; a longer
            time-out ends then.
        function: takes milliseconds, -1 for ever, as its last argument.

    Raises:
        ValueError: `timeout` is negative or not a number.
        OSError: the function failed.
    """
    if timeout is None:
        return retry(call, function, *arguments, -1)
    if not timeout >= 0:
        raise ValueError(f"{call}: timeout must be None or at least 0 seconds, not {timeout!r}")
    deadline = time.monotonic() + timeout
    while (result := function(*arguments, _milliseconds(timeout))) == -errno.EINTR:
        timeout = max(0.0, deadline - time.monotonic())
    return check(result, call)


def _milliseconds(seconds: float) -> int:
    return math.ceil(min(seconds * 1000, _INT_MAX))

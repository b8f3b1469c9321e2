"""`examples/pushmessage.py`: who is connected gets what the server pushes."""

from __future__ import annotations

import contextlib
import re
from itertools import pairwise

from running_examples import running


def test_all_get_every_message_once() -> None:
    with running("pushmessage.py", "0.02") as example, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(example.connect()) for _ in range(5)]
        files = [stack.enter_context(sock.makefile("rb")) for sock in socks]
        for file in files:
            assert file.readline() == b"welcome\n"
            numbers: list[int] = []
            while len(numbers) < 3:  # that all five get, in a row
                found = re.fullmatch(rb"message (\d+) to all ([1-5])\n", file.readline())
                assert found is not None
                numbers += [int(found[1])] * (found[2] == b"5")
            assert all(second == first + 1 for first, second in pairwise(numbers))

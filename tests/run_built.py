"""All tests once more, over an extension built in another way: as the environment says.

    GEVFFI_POLLER=kqueue GEVFFI_KQUEUE_PREFIX=/some/prefix python tests/run_built.py
    GEVFFI_PORTABLE=1 python tests/run_built.py tests/test_poller.py -x

The first is the kqueue poller on Linux, over libkqueue; the second the rest of what other systems
run, as far as Linux has it: accept and fcntl, shm_open, sigwait. docs/platforms.md tells more. The
tree is copied, so the extension that is built in place stays as it is.
"""

from __future__ import annotations

import sys

from elsewhere import built_copy, run_pytest


def main(arguments: list[str]) -> int:
    """Build, run pytest with `arguments`, and return its exit status."""
    with built_copy("built", {}) as folder:
        return run_pytest(folder, arguments, {})


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

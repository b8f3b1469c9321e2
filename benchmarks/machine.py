"""What the figures were measured on. A figure without its machine is hearsay."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGES = (
    *("gevffi", "cffi", "uvloop", "picows", "aiofastnet", "socketify", "aiohttp", "websockets"),
    *("numpy", "matplotlib", "rich"),
)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(*command: str) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.partition("\n")[0]


def describe() -> dict[str, object]:
    """CPU, kernel, Python, compiler and package versions, and the load before anything ran."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": _first_line(*os.environ.get("CC", "cc").split(), "--version"),
        "commit": _first_line("git", "describe", "--always", "--dirty"),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "load_average": os.getloadavg()[0],
    }

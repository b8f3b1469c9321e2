"""The one exception that ends a run with a sentence instead of a traceback."""

from __future__ import annotations


class BenchmarkError(Exception):
    """A measurement failed: a server died, bytes came back wrong, a tool is missing."""

"""What ends a run with a sentence instead of a traceback."""

from __future__ import annotations


class ComplianceError(Exception):
    """The suite did not run to its end, or left no report."""


class NotHereError(ComplianceError):
    """The suite cannot run on this machine: there is no CPython 2.7, or it cannot be installed."""

"""What ends a run with a sentence instead of a traceback."""

from __future__ import annotations


class ComplianceError(Exception):
    """The suite could not be set up, did not run to its end, or left no report."""


class NotHereError(ComplianceError):
    """There is no CPython 2.7 on this machine, so that the suite cannot run on it at all."""

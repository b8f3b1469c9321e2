"""Builds the extension. Everything else about the package stands in pyproject.toml.

This file exists because two things cannot be said there: that cffi builds the extension, and
what to tell somebody whose machine has no compiler.
"""

from __future__ import annotations

import sysconfig

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, ExecError, PlatformError


class BuildExtension(build_ext):
    """`build_ext` that says in one sentence what is missing."""

    def build_extension(self, ext: object) -> None:
        try:
            super().build_extension(ext)
        except (CompileError, ExecError, PlatformError) as exc:
            raise SystemExit(
                "gevffi needs a C11 compiler and the Python headers to build its extension "
                "(on Debian: apt-get install gcc libc6-dev python3-dev); "
                f"the compiler said: {exc}"
            ) from None


# One wheel serves every CPython from 3.10 on: cffi builds against the limited API there.
# A free-threaded interpreter has no limited API and gets a wheel of its own.
_free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

setup(
    cffi_modules=["gevffi/_build_ffi.py:ffibuilder"],
    cmdclass={"build_ext": BuildExtension},
    options={} if _free_threaded else {"bdist_wheel": {"py_limited_api": "cp310"}},
)

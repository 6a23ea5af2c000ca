"""Builds the C core where there is a compiler. Without it the package installs all the same, and runs in Python.

The core is a plain shared library without Python or torch; `sadp_bench.native.library` loads it. Its file has no version of
Python in its name, and one wheel serves all of them.
"""

import os
import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class BuildCore(build_ext):
    """Names the library as `library.py` looks for it; nothing is exported for Python."""

    def get_ext_filename(self, name: str) -> str:
        """Returns the library's file: its name, and the system's suffix."""
        return os.path.join(*name.split(".")) + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")

    def get_export_symbols(self, extension: Extension) -> list[str]:
        """Returns no function that starts a Python module."""
        return list(extension.export_symbols)


class AnyPythonWheel(bdist_wheel):
    """Tags the wheel for a platform and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Returns py3-none-PLATFORM."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "sadp_bench.native.libcore",
            ["sadp_bench/native/norm_pool_lif.c", "sadp_bench/native/spike_conv.c"],
            depends=["sadp_bench/native/blocks.h"],
            # A product and a sum round apart, so that every processor computes the same numbers. Nothing reads the
            # flags of floating-point exceptions, so a choice between two numbers may compute both, as vectors must.
            extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"],
            libraries=["m"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildCore, "bdist_wheel": AnyPythonWheel},
)

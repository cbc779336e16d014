"""What pyproject.toml cannot say: the programs are compiled for the kernel, and the bindings for Python.

The libbpf binding is compiled where there is a libbpf, the others everywhere.
"""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PAGE = Path("src/wiremeter/server/web/built/index.html")
PROGRAM = Path("src/wiremeter/programs/wiremeter.bpf.o")
SOURCES = (Path("bpf/wiremeter.bpf.c"), *Path("bpf").rglob("*.h"))
BINDINGS = [
    "src/wiremeter/datapath/host_build.py:ffi",
    "src/wiremeter/names/library_build.py:ffi",
    "src/wiremeter/reports/json_rows_build.py:ffi",
]
if sys.platform == "linux":
    BINDINGS += ["src/wiremeter/libbpf/build.py:ffi", "src/wiremeter/isolation/seal_build.py:ffi"]


def is_current() -> bool:
    """Whether the object is there and newer than all it is made of."""
    return PROGRAM.exists() and PROGRAM.stat().st_mtime >= max(source.stat().st_mtime for source in SOURCES)


class BuildWithPrograms(build_py):
    """Compiles the object into the package before the package is copied."""

    def run(self) -> None:
        if sys.platform == "linux" and not is_current():
            done = subprocess.run(
                ["scripts/compile-bpf", SOURCES[0], PROGRAM], stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                sys.exit(
                    f"wiremeter's programs for the kernel cannot be compiled, so it cannot be built:\n{done.stderr}"
                )
        if not PAGE.exists():
            print(f"warning: {PAGE} is not there, so the server will have no web page: `make web`", file=sys.stderr)
        super().run()


setup(
    cffi_modules=BINDINGS,
    cmdclass={"build_py": BuildWithPrograms},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # what cffi makes uses no more than that: one wheel for all
)

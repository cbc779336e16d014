"""What is built from a fresh clone works where there is no clone: the wheel carries the compiled programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD_SDIST = "import setuptools.build_meta as backend; print(backend.build_sdist('dist'))"


def run(*argv: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        [str(each) for each in argv], capture_output=True, text=True, check=False, timeout=300, **options
    )
    return done


def succeed(*argv: str | Path, **options: object) -> str:
    """What a command prints."""
    done = run(*argv, **options)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a fresh clone: nothing that was built here."""
    to = tmp_path_factory.mktemp("clone")
    listed = succeed("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


@pytest.fixture(scope="module")
def sdist(clone: Path) -> Path:
    """The folder that the sdist of the clone unpacks to."""
    name = succeed(sys.executable, "-c", BUILD_SDIST, cwd=clone).splitlines()[-1]
    with tarfile.open(clone / "dist" / name) as archive:
        archive.extractall(clone / "unpacked", filter="data")
    return clone / "unpacked" / name.removesuffix(".tar.gz")


def build_wheel(source: Path, to: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    return run(*pip, "--wheel-dir", to, source, env=os.environ | environment)


def installed(sdist: Path, home: Path) -> Path:
    """`wiremeter` from a wheel out of the sdist, in an environment of its own beside what it depends on."""
    done = build_wheel(sdist, home)
    assert done.returncode == 0, done.stderr
    (wheel,) = home.glob("*.whl")
    succeed(sys.executable, "-m", "venv", "--without-pip", home / "venv")
    python = home / "venv" / "bin" / "python"
    succeed(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    # Through a .pth file other packages are found, but not wiremeter, which lies there as a .pth file itself.
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "venv" / "bin" / "wiremeter"


def test_an_sdist_has_the_sources_of_what_is_compiled_and_nothing_that_was(sdist: Path) -> None:
    names = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "bpf").rglob("*.[ch]")}
    assert sources | {"scripts/compile-bpf", "src/wiremeter/libbpf/shim.c"} <= names
    assert not [name for name in names if name.endswith((".o", ".so"))]


@pytest.mark.slow
def test_a_wheel_out_of_it_works_where_there_is_no_clone(sdist: Path, tmp_path: Path) -> None:
    """One test, since the build takes long: the package is the installed one; its programs are whole; it simulates,
    replays, and doctor misses no file."""
    command = installed(sdist, tmp_path)
    place = succeed(command.with_name("python"), "-c", "import wiremeter; print(wiremeter.__file__)", cwd="/")
    assert Path(place.strip()).is_relative_to(command.parents[1])

    (report,) = json.loads(succeed(command, "verify", "--no-load", "--format", "json", cwd="/"))
    assert Path(report["file"]).is_relative_to(command.parents[1])
    assert [check["name"] for check in report["checks"] if not check["passed"]] == ["load"]

    options = ("--seconds", "1", "--packets-per-second", "500", "--format", "json")
    simulated = json.loads(succeed(command, "simulate", *options, "--write", tmp_path / "made.pcap", cwd=tmp_path))
    replayed = json.loads(succeed(command, "replay", tmp_path / "made.pcap", "--format", "json", cwd=tmp_path))
    assert simulated["seen"] == replayed["seen"]
    assert replayed["seen"]["packets"] == 500

    said = run(command, "doctor", "--format", "json", cwd="/").stdout
    assert json.loads(said)
    assert "make build" not in said


def test_without_a_compiler_the_build_ends_with_what_to_install(sdist: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "env", "dirname", "mkdir", "gcc", "uname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    fresh = tmp_path / "source"
    shutil.copytree(sdist, fresh, ignore=shutil.ignore_patterns("build", "*.o"))
    done = build_wheel(fresh, tmp_path, PATH=str(programs))
    assert done.returncode
    assert "wiremeter's programs for the kernel cannot be compiled" in done.stdout + done.stderr
    assert "install clang 14 or newer" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.whl"))

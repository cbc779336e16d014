"""Networks that are metered: one made for a test, or one that is there."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar, cast

from wiremeter.errors import InputError, WiremeterError
from wiremeter.flows.batch import FlowBatch
from wiremeter.linux.host import read_host
from wiremeter.metering.attach_policy import host_problems
from wiremeter.settings.words import RequestedMode
from wiremeter.testing import kernel
from wiremeter.testing.errors import CannotMeter
from wiremeter.testing.messages import receive, send
from wiremeter.testing.traffic import Traffic

T = TypeVar("T")

#: Seconds between batches: how long a question may have to wait.
INTERVAL = 0.1
_START_SECONDS = 60.0
_ANSWER_SECONDS = 30.0
_NAMED = Path("/run/netns")
#: What ended the metering process, by the word it says.
_FAILURES: dict[str, type[WiremeterError]] = {"refused": CannotMeter, "wrong": InputError, "broken": WiremeterError}


class _Meter:
    """A child that meters, and what it has told so far."""

    def __init__(
        self, network: str | None, interfaces: Sequence[str], attach: RequestedMode, *, own_user: bool = False
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "wiremeter.testing.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._batches: list[FlowBatch] = []
        self._told = threading.Condition()
        self._stage = "starting"
        self._failure: WiremeterError | None = None
        threading.Thread(target=self._listen, name="wiremeter-testing", daemon=True).start()
        options = {
            "network": network,
            "own_user": own_user,
            "interfaces": tuple(interfaces),
            "attach": attach,
            "interval": INTERVAL,
        }
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            send(cast(BinaryIO, self._process.stdin), options)
        try:
            self._wait(lambda: self._stage == "ready" or self._is_over, _START_SECONDS, "the meter to start")
            self._check()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def batches(self) -> Sequence[FlowBatch]:
        """All so far, once they hold what was on the wire at the call."""
        now = time.time_ns()
        self._wait(
            lambda: self._is_over or bool(self._batches and self._batches[-1].start_ns >= now),
            _ANSWER_SECONDS,
            "the next batch",
        )
        self._check()
        return self._batches

    def _check(self) -> None:
        """Raises what has ended the child, unless it was told to end: what it counted then is all there was."""
        if self._failure:
            raise self._failure
        if self._stage == "ended":
            status = self._process.wait(_ANSWER_SECONDS)
            raise WiremeterError(
                f"the metering process ended, with status {status}: nothing can be said of the traffic"
            )

    def close(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._told:
            self._told.wait_for(lambda: self._is_over, 5)

    @property
    def _is_over(self) -> bool:
        """Whether no more comes: it was told to end, or has ended of itself."""
        return self._stage in ("finished", "ended")

    def _wait(self, claim: Callable[[], bool], seconds: float, what: str) -> None:
        with self._told:
            if not self._told.wait_for(claim, seconds):
                raise WiremeterError(f"waited {seconds:g} s in vain for {what}")

    def _listen(self) -> None:
        assert self._process.stdout
        try:
            with cast(BinaryIO, self._process.stdout) as output:
                while message := receive(output):
                    self._take(*message)
        finally:
            with self._told:
                if self._stage != "finished":
                    self._stage = "ended"
                self._told.notify_all()

    def _take(self, kind: str, *what: Any) -> None:
        with self._told:
            if kind == "batch":
                self._batches.append(what[0])
            elif kind in _FAILURES:
                self._failure = _FAILURES[kind](what[0])
            else:
                self._stage = kind
            self._told.notify_all()


class Namespace:
    """A network namespace of its own with a loopback device, metered from the beginning to the end.

    With the rights for it the meter attaches as everywhere. Without them the namespace lies in a user namespace, and
    packet sockets meter it. Programs see nothing but each other in it: the servers that a client needs must run in it,
    too.

    >>> with Namespace() as network:                # doctest: +SKIP
    ...     network.run(["dig", "@127.0.0.1", "db.internal"])
    ...     assert network.traffic.dns(name="db.internal").count == 1
    """

    def __init__(self) -> None:
        """Nothing is made yet."""
        self._meter: _Meter | None = None
        self._started: list[subprocess.Popen[Any]] = []
        host = read_host()
        self._is_privileged = "CAP_SYS_ADMIN" in host.capabilities
        self._attach: RequestedMode = "capture" if host_problems(host) else "auto"

    def __enter__(self) -> Self:
        """Raises CannotMeter where this machine does not allow it."""
        self._meter = _Meter(None, ["lo"], self._attach, own_user=not self._is_privileged)
        self.traffic = Traffic(self._meter.batches)
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        if self._meter:
            self._meter.close()

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Runs a command in it to its end, as subprocess.run does; a status other than 0 raises unless check=False."""
        return subprocess.run([*self._entering, *command], **{"check": True, **options})

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a command in it, as subprocess.Popen does; it is killed when the namespace ends."""
        process = subprocess.Popen([*self._entering, *command], **options)
        self._started.append(process)
        return process

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """What a function returns that runs in it, in a forked process. The answer must pickle.

        Raises RuntimeError with its traceback where the function raised.
        """
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            self._answer(writing, function, args)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        if not data:
            raise RuntimeError(f"{function!r} died without an answer")
        worked, value = pickle.loads(data)
        if not worked:
            raise RuntimeError(f"{function!r} raised in its process:\n{value}")
        answer: T = value
        return answer

    def _answer(self, writing: int, function: Callable[..., Any], args: Sequence[Any]) -> None:
        """In the child: never returns."""
        import traceback

        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            try:
                if not self._is_privileged:
                    kernel.enter(f"/proc/{self._pid}/ns/user", kernel.CLONE_NEWUSER)
                kernel.enter(f"/proc/{self._pid}/ns/net", kernel.CLONE_NEWNET)
                answer = pickle.dumps((True, function(*args)))
            except BaseException:
                answer = pickle.dumps((False, traceback.format_exc()))
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)

    @property
    def _pid(self) -> int:
        if not self._meter:
            raise WiremeterError("the namespace is not made: use it as `with Namespace() as network:`")
        return self._meter.pid

    @property
    def _entering(self) -> list[str]:
        user = [] if self._is_privileged else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self._pid}", "--net", *user, "--"]


@contextlib.contextmanager
def meter(target: int | str | None = None, *interfaces: str, attach: RequestedMode = "auto") -> Iterator[Traffic]:
    """Meters a network that is there already; needs the rights to meter in it, usually root.

    target: a process's id, whose network it is (that of its container, say); the name of a namespace, as `ip netns` has
    them, or a path to one; None for this process's own. interfaces: device names or globs, by default all.
    Raises CannotMeter where this machine does not allow it, InputError where no such network or device is there.
    """
    match target:
        case None:
            network = ""
        case int():
            network = f"/proc/{target}/ns/net"
        case _:
            network = target if "/" in target else str(_NAMED / target)
    metering = _Meter(network, interfaces or ("*",), attach)
    try:
        yield Traffic(metering.batches)
    finally:
        metering.close()

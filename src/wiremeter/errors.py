"""What can go wrong, by whose move it is."""

#: What to do about EMFILE and ENFILE, wherever they come from.
MORE_FILES = "let this process open more files (ulimit -n; systemd: LimitNOFILE)"


class WiremeterError(Exception):
    """Base of all errors that wiremeter raises on purpose; the text says what, why and what to do."""


class InputError(WiremeterError):
    """An argument, a setting or a file is wrong: fix it and try again."""


class PermissionNeeded(WiremeterError):
    """The process lacks a capability; the text names it."""


class KernelError(WiremeterError):
    """The kernel refused a call.

    call: the system call or libbpf function.
    errno: positive error number, 0 where the kernel gave none.
    """

    def __init__(self, message: str, *, call: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.call = call
        self.errno = errno


class VerifierError(KernelError):
    """The BPF verifier refused a program; `log` is what it said."""

    def __init__(self, message: str, *, log: str, errno: int = 0) -> None:
        super().__init__(message, call="BPF_PROG_LOAD", errno=errno)
        self.log = log

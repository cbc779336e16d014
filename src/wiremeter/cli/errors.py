"""What an error is to whoever ran the command: an exit status, and a message."""

from __future__ import annotations

from wiremeter.errors import InputError, VerifierError, WiremeterError

EXIT_ERROR = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

#: Lines of a verifier log that are shown; the reason is at its end.
_VERIFIER_LINES = 40


def exit_status(error: WiremeterError) -> int:
    """2 if an argument or file is wrong, else 1."""
    return EXIT_INPUT if isinstance(error, InputError) else EXIT_ERROR


def message_for(error: WiremeterError) -> str:
    """What is shown of an error: its text, and for a verifier's refusal the end of the log."""
    message = f"wiremeter: {error}"
    if not isinstance(error, VerifierError) or not error.log.strip() or error.log in str(error):
        return message
    lines = error.log.rstrip().splitlines()
    left_out = [f"... ({len(lines) - _VERIFIER_LINES} lines before)"] if len(lines) > _VERIFIER_LINES else []
    return "\n".join([message, "the verifier's log:", *left_out, *lines[-_VERIFIER_LINES:]])

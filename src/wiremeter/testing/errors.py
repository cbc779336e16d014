"""What can go wrong with metering in a test."""

from __future__ import annotations

from wiremeter.errors import WiremeterError


class CannotMeter(WiremeterError):
    """This machine does not allow it; the text says what is missing. The fixtures skip the test then."""


class TrafficLost(WiremeterError):
    """Something was lost before it could be counted or read, so that no exact claim can be made."""

"""Settings that a running agent takes anew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from wiremeter.agent import logs
from wiremeter.agent.shipping import shipping_options
from wiremeter.errors import WiremeterError
from wiremeter.settings import Settings
from wiremeter.settings.setting import settings_of

if TYPE_CHECKING:
    from wiremeter.sinks.shipping.shipper import Shipper

log = logging.getLogger(__name__)


class InForce:
    """The settings that hold now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


class Reload:
    """Reads the settings again and takes those that can be taken; says which need a restart."""

    def __init__(self, in_force: InForce, reread: Callable[[], Settings], shipper: Shipper | None) -> None:
        """reread: gives the settings from where they came, once more; raises InputError."""
        self._in_force = in_force
        self._reread = reread
        self._shipper = shipper

    def __call__(self) -> None:
        """All or nothing: where one is wrong, those of before stay. Raises nothing."""
        before = self._in_force.settings
        try:
            told = self._reread()
            names = [each.name for each in fields(told)]
            changed = [name for name in names if getattr(told, name) != getattr(before, name)]
            taken = {name: getattr(told, name) for name in changed if self._can_be_taken(name, told)}
            settings = replace(before, **taken)
            if self._shipper:
                self._shipper.change(shipping_options(settings, self._shipper.agent))
        except WiremeterError as error:
            log.error("the settings cannot be read again: those of before stay", extra={"why": str(error)})
            return
        logs.configure("debug" if settings.debug else settings.log_level, settings.log_format)
        self._in_force.settings = settings
        log.info("settings read again", extra={"changed": ",".join(taken) or "nothing"})
        if left := [name for name in changed if name not in taken]:
            log.warning("settings changed that need a restart", extra={"settings": ",".join(left)})

    def _can_be_taken(self, name: str, told: Settings) -> bool:
        if name == "server" and not (self._shipper and told.server):
            return False  # shipping begins and ends with the process
        return settings_of(Settings)[name].reloads

"""The settings of names as the sources take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from wiremeter.datapath.naming import NameOptions

if TYPE_CHECKING:
    from wiremeter.names.namer import Kind
    from wiremeter.settings import Settings


def name_options(settings: Settings) -> NameOptions:
    """What `settings` allow to be read of payloads."""
    return NameOptions(
        kinds=cast("tuple[Kind, ...]", settings.names),
        payload_bytes=settings.payload_bytes,
        redact_paths=settings.redact_paths,
        state=settings.state_dir,
    )

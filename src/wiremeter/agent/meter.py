"""The live meter that settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wiremeter.datapath.naming import NameOptions
    from wiremeter.flows.batch import Mark
    from wiremeter.metering.monitor import Monitor
    from wiremeter.settings.catalogue import Live, Naming, Settings


def open_monitor(settings: Settings | Live, told: Mark | None = None) -> Monitor:
    """The monitor, not opened yet. told: Monitor's. Raises InputError for settings that do not go together."""
    from wiremeter.metering.monitor import Monitor
    from wiremeter.settings.catalogue import Pinned

    return Monitor(
        *settings.interfaces,
        interval=settings.interval,
        attach=settings.attach,
        flow_table=settings.flow_table,
        program=settings.program,
        bpf_stats=settings.bpf_stats,
        max_devices=settings.max_devices,
        max_flows=settings.max_flows,
        names=name_options(settings, settings.state_dir, isolated=settings.isolate),
        urgent=True,
        pin=settings.pin if isinstance(settings, Pinned) else None,
        state_dir=settings.state_dir,
        told=told,
    )


def name_options(settings: Naming, state_dir: str | None = None, *, isolated: bool = False) -> NameOptions:
    """What `settings` allow to be read of payloads. state_dir, isolated: NameOptions.state and isolated."""
    from wiremeter.datapath.naming import NameOptions

    return NameOptions(
        kinds=settings.names,
        payload_bytes=settings.payload_bytes,
        redact_paths=settings.redact_paths,
        ja4s=settings.ja4s,
        state=state_dir,
        isolated=isolated,
    )

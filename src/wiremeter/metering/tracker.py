"""Which devices are metered: attaches to those that match, lets go of those that are gone, while they come and go."""

from __future__ import annotations

import errno
import itertools
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from wiremeter.datapath.engine import Hook, LiveAttachment, LiveEngine
from wiremeter.errors import InputError, KernelError, PermissionNeeded, WiremeterError
from wiremeter.flows.batch import Attachment
from wiremeter.flows.columns import AttachMode, Direction
from wiremeter.linux.devices import Device, is_glob, read_default_route, read_devices, select_devices
from wiremeter.linux.grace_periods import GracePeriods
from wiremeter.linux.host import HostFacts
from wiremeter.linux.netlink_messages import XdpSlot
from wiremeter.metering.attach_policy import AttachPlan, plan_attach
from wiremeter.settings.words import RequestedMode

log = logging.getLogger(__name__)

#: How long the start waits for devices that nobody named before the first interval begins.
START_SECONDS = 0.2
#: How long devices are attached to before all else has its turn.
TURN_SECONDS = 0.02
_PROGRAMS = 2  # of a device


@dataclass(slots=True)
class Metered:
    """One attachment and the device it is on, as last seen."""

    attachment: Attachment
    kernel: LiveAttachment
    device: Device


class Tracker:
    """The attachments of a monitor. Every one keeps its id for life, whatever its device is called later."""

    def __init__(
        self,
        engine: LiveEngine,
        grace: GracePeriods,
        host: HostFacts,
        patterns: Sequence[str],
        requested: RequestedMode = "auto",
    ) -> None:
        self._engine = engine
        self._grace = grace
        self._host = host
        self._patterns = patterns
        self._requested = requested
        self._ids = itertools.count()
        self._refused: dict[tuple[int, str], WiremeterError] = {}
        self._waiting: deque[Device] = deque()
        self._let_go: list[Metered] = []
        self.metered: list[Metered] = []
        #: What agents before this one attached and left attached, until it is attached to again or let go.
        self.adopted: dict[LiveAttachment, Attachment] = {kernel: self._named(kernel) for kernel in engine.adopted}

    def _named(self, kernel: LiveAttachment) -> Attachment:
        hook = kernel.hook
        return Attachment(next(self._ids), hook.device, hook.ifindex, hook.direction, hook.mode)

    def attachment_of(self, kernel: LiveAttachment) -> Attachment:
        """What a drain's owner is to those who read batches, also if it is no more."""
        for metered in self.metered:
            if metered.kernel is kernel:
                return metered.attachment
        if kernel not in self.adopted:
            self.adopted[kernel] = self._named(kernel)
        return self.adopted[kernel]

    @property
    def waiting(self) -> int:
        """Devices that `attach_some` will attach to."""
        return len(self._waiting)

    def start(self) -> None:
        """Attaches to devices that match now: to those that are named, and to others for START_SECONDS; the rest waits.

        Raises InputError for a device that is named but not there, or when `auto` finds none; KernelError and
        PermissionNeeded when a named device, or the only one, cannot be metered.
        """
        until = time.monotonic() + START_SECONDS
        selected = select_devices(self._patterns, read_devices(), read_default_route())
        with self._grace.expedited(_PROGRAMS * len(selected)):
            for device in sorted(selected, key=self._is_named, reverse=True):  # room is for those that are named first
                self._attach_at_start(device, until)
        self._release_adopted()

    def _release_adopted(self) -> None:
        """Lets go of what was left attached to devices that nobody wants metered any more."""
        wanted = {device.ifindex for device in self._waiting}
        for kernel in [kernel for kernel in self.adopted if kernel.hook.ifindex not in wanted]:
            if any(kernel is attached for attached in self._engine.attachments):
                self._engine.release(kernel)
            if not self._engine.holds(kernel):
                del self.adopted[kernel]

    def _attach_at_start(self, device: Device, until: float) -> None:
        is_named = self._is_named(device)
        if not is_named and self.metered and time.monotonic() >= until:
            self._waiting.append(device)
            return
        try:
            self._attach(device)
        except PermissionNeeded:
            raise
        except WiremeterError as error:
            if is_named:
                raise
            self._refuse(device, error)

    def close(self) -> None:
        """Takes all programs off, but those that outlive this process."""
        if self._engine.lasts:
            self.metered.clear()
            return
        with self._grace.expedited(len(self.metered)):
            while self.metered:
                self._engine.release(self.metered.pop().kernel)

    def refresh(self) -> None:
        """Looks at the devices again and lets go of those that are gone. Those that are new wait for `attach_some`.

        So does a device where somebody took one of our two programs away: both are attached again.
        """
        devices = {device.ifindex: device for device in read_devices()}
        off = {m.device.ifindex for m in self.metered if not self._is_still_on(m, devices.get(m.device.ifindex))}
        gone = [metered for metered in self.metered if metered.device.ifindex in off]
        for metered in gone:
            self._release(metered)
            self.metered.remove(metered)
        for metered in self.metered:
            metered.device = devices[metered.device.ifindex]
            if metered.device.name != metered.attachment.device:
                metered.attachment = replace(metered.attachment, device=metered.device.name)
        if gone:  # there is room again
            self._refused = {key: error for key, error in self._refused.items() if not isinstance(error, InputError)}
        taken = {metered.device.ifindex for metered in self.metered}
        selected = select_devices(self._patterns, devices.values(), read_default_route(), strict=False)
        self._waiting = deque(
            device
            for device in selected
            if device.ifindex not in taken and (device.ifindex, device.name) not in self._refused
        )
        self._release_adopted()
        for refused in [key for key in self._refused if key[0] not in devices or devices[key[0]].name != key[1]]:
            del self._refused[refused]

    def take_let_go(self) -> list[Metered]:
        """What was let go of since the last call; the engine may still have counts of it."""
        let_go, self._let_go = self._let_go, []
        return let_go

    def attach_some(self) -> None:
        """Attaches to devices that wait, for TURN_SECONDS. The kernel waits for a grace period for each direction: some
        30 ms for a device among few, 1 ms for one among many.

        A device that cannot be metered is logged; one that is gone again is not.
        """
        until = time.monotonic() + TURN_SECONDS
        with self._grace.expedited(_PROGRAMS * len(self._waiting)):
            while self._waiting:
                self._attach_waiting(self._waiting.popleft())
                if time.monotonic() >= until:
                    return

    def _attach_waiting(self, device: Device) -> None:
        try:
            self._attach(device)
        except WiremeterError as error:
            if not (isinstance(error, KernelError) and error.errno == errno.ENODEV):
                self._refuse(device, error)

    def displaced(self) -> tuple[str, ...]:
        """Where another program comes before ours, as "device direction"."""
        found = []
        for metered in self.metered:
            try:
                first = metered.kernel.is_first()
            except KernelError:  # the device is going; the next refresh lets it go
                continue
            if not first:
                found.append(f"{metered.attachment.device} {metered.attachment.direction}")
        return tuple(found)

    def _is_named(self, device: Device) -> bool:
        return device.name in self._patterns or not any(map(is_glob, self._patterns))

    def _is_still_on(self, metered: Metered, device: Device | None) -> bool:
        """A device that went to another namespace keeps its link, and another may have its ifindex here by now."""
        return device is not None and metered.kernel.is_attached()

    def _release(self, metered: Metered) -> None:
        self._engine.release(metered.kernel)
        self._let_go.append(metered)

    def _refuse(self, device: Device, error: WiremeterError) -> None:
        self._refused[device.ifindex, device.name] = error
        log.warning("not metered", extra={"device": device.name, "reason": str(error)})

    def _attach(self, device: Device) -> None:
        plan = plan_attach(self._as_if_new(device), self._host, self._requested, reads_vlan_metadata=True)
        if plan.problems:
            kind = PermissionNeeded if self._host.missing_capabilities_for(self._requested) else KernelError
            raise kind(" ".join(plan.problems))
        log.info(
            "chosen", extra={"device": device.name, "rx": plan.rx_mode, "tx": plan.tx_mode, "because": plan.reason}
        )
        if plan.tx_mode != "capture" and ("clsact" in (plan.rx_mode, plan.tx_mode) or not self._host.can("tcx")):
            from wiremeter.datapath.clsact import remove_stale_filters  # needs the binding, which packet sockets do not

            for direction in remove_stale_filters(device.ifindex):
                log.warning("removed a stale filter of ours", extra={"device": device.name, "direction": direction})
        rx = self._attach_rx(device, plan)
        try:
            tx = self._attach_one(device, "tx", plan.tx_mode)
        except BaseException:
            self._release(rx)
            raise
        self.metered += (rx, tx)

    def _as_if_new(self, device: Device) -> Device:
        """Without the program in its XDP slot that an agent before this one has left there for us."""
        if device.xdp.is_free:
            return device
        ours = {kernel.info().id for kernel in self.adopted if kernel in self._engine.attachments}
        return replace(device, xdp=XdpSlot()) if ours.issuperset(device.xdp.program_ids) else device

    def _attach_rx(self, device: Device, plan: AttachPlan) -> Metered:
        try:
            return self._attach_one(device, "rx", plan.rx_mode)
        except KernelError as error:
            if self._requested != "auto" or plan.rx_mode != "xdp":
                raise
            log.warning(
                "native XDP was refused, metering at tc instead",
                extra={"device": device.name, "mode": plan.tx_mode, "reason": str(error)},
            )
            return self._attach_one(device, "rx", plan.tx_mode)

    def _attach_one(self, device: Device, direction: Direction, mode: AttachMode) -> Metered:
        tags = device.xdp_support is not None and "vlan-tag" in device.xdp_support.rx_metadata
        hook = Hook(
            device=device.name,
            ifindex=device.ifindex,
            direction=direction,
            mode=mode,
            l2_bytes=device.l2_bytes,
            vlan_from_driver=mode == "xdp" and tags,
        )
        try:
            kernel = self._engine.attach(hook)
        except KernelError as error:
            raise _explained(error, mode) from error
        if kernel in self.adopted:
            return Metered(replace(self.adopted.pop(kernel), device=device.name), kernel, device)
        attachment = Attachment(next(self._ids), device.name, device.ifindex, direction, mode)
        return Metered(attachment, kernel, device)


#: What the kernel's number means where a program is attached, and whose move it is.
_XDP_ADVICE = {
    errno.EBUSY: "another XDP program is on this device (`wiremeter doctor` names it): use --attach auto or tcx",
    errno.EEXIST: "another XDP program is on this device (`wiremeter doctor` names it): use --attach auto or tcx",
    errno.EINVAL: "the driver refuses XDP as the device is configured (MTU, queues or offloads): use --attach tcx",
    errno.ERANGE: "the device's MTU is too large for this driver's XDP: lower it, or use --attach tcx",
    errno.EOPNOTSUPP: "the driver has no native XDP, or not with this configuration: use --attach tcx",
}
_ADVICE: dict[AttachMode, dict[int, str]] = {
    "xdp": _XDP_ADVICE,
    "xdp-generic": _XDP_ADVICE | {errno.EOPNOTSUPP: "this device takes no generic XDP: use --attach tcx"},
    "tcx": {
        errno.EINVAL: "this kernel has no tcx (Linux 6.6)",
        errno.ERANGE: "the hook holds as many programs as it can: `wiremeter doctor` names them",
    },
    "clsact": {
        errno.EEXIST: "a filter with our handle is there already: another wiremeter meters this device, or was killed; "
        "`wiremeter detach` removes what it left"
    },
}


def _explained(error: KernelError, mode: AttachMode) -> KernelError:
    if error.call not in ("BPF_LINK_CREATE", "RTM_NEWTFILTER"):
        return error
    gone = {errno.ENODEV: "the device is gone"}
    advice = (gone | _ADVICE.get(mode, {})).get(error.errno or 0)
    return KernelError(f"{error}; {advice}" if advice else str(error), call=error.call, errno=error.errno)

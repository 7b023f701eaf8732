"""Carries out what plan.py says, in rounds of look, plan, do, until a fresh look shows that there is nothing left to do.

Nothing is concluded from the answer to a write: the kernel takes some, and does nothing (docs/kubernetes.md). One agent of a
node does this at a time.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gismo_deviceplugin.pool.dax.checkpoint import Carved, Checkpoint
from gismo_deviceplugin.pool.dax.plan import Align, Bind, Create, Delete, Empty, Forget, Map, Plan, Step, Unbind, plan
from gismo_deviceplugin.pool.dax.region import Device, Region, Span
from gismo_deviceplugin.pool.dax.sysfs import Sysfs
from gismo_deviceplugin.pool.dax.system import System
from gismo_deviceplugin.pool.medium import Unfit

logger = logging.getLogger("gismo.agent")

_ROUNDS = 12  # free, create, map, bind, look: five; more where a device takes no driver, or others change the region


@dataclass(frozen=True, slots=True)
class Result:
    """What there is after carving: each wanted span is in one of the two."""

    done: Mapping[Span, Device] = field(default_factory=dict)
    refused: Mapping[Span, Unfit] = field(default_factory=dict)
    busy: Mapping[Span, str] = field(default_factory=dict)  # spans that were to go, and who uses them


class Carver:
    """Of one node. folder: on a tmpfs of the node's own, for the lock and the checkpoint."""

    def __init__(self, system: System, folder: Path, boot_id: str) -> None:
        self._system = system
        self._sysfs = Sysfs(system.sysfs)
        self._lock = folder / "lock"
        self._checkpoint = Checkpoint(folder / "devices.json", boot_id)

    def carve(self, region: str, wanted: Mapping[Span, str]) -> Result:
        """wanted: spans, and the stores that they are for. Each that is not refused is a device of its own afterwards.

        A device that was carved for another store is not taken, even where its bytes are the same: a container that had that
        store may still open it.
        """
        with self._alone():
            held = self._checkpoint.read()
            older = {one for one in held if one.region == region and wanted.get(one.span) != one.store_uuid}
            refused = {
                span: Unfit(f"its bytes are still in the device of store {one.store_uuid}, which is gone", "RangeTaken")
                for span in wanted
                for one in older
                if span.overlaps(one.span)
            }
            allowed = {span: store for span, store in wanted.items() if span not in refused}
            new = held | {Carved(region, span, store) for span, store in allowed.items()}
            if new != held:
                self._checkpoint.write(new)  # before anything is made
            result = self._settle(region, frozenset(allowed), frozenset())
            return Result(result.done, {**result.refused, **refused})

    def free(self, region: str, spans: Mapping[Span, str]) -> Result:
        """spans, and the stores that they were for. They are nobody's afterwards, but for those that somebody uses: these stay."""
        with self._alone():
            held = self._checkpoint.read()
            others = {
                one.span
                for one in held
                if one.region == region and spans.get(one.span, one.store_uuid) != one.store_uuid
            }
            going = frozenset(spans) - others
            result = self._settle(region, frozenset(), going)
            gone = going - result.busy.keys()
            left = frozenset(one for one in held if one.region != region or one.span not in gone)
            if left != held:
                self._checkpoint.write(left)  # after all of it is gone
            return result

    def carved(self) -> frozenset[Carved]:
        """What was carved in this boot, or was about to be."""
        return self._checkpoint.read()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _settle(self, name: str, wanted: frozenset[Span], going: frozenset[Span]) -> Result:
        tried = _Tried()
        for _ in range(_ROUNDS):
            region = self._region(name)
            planned = plan(region, wanted, going - tried.busy.keys(), frozenset(tried.broken))
            todo = [chain for chain in planned.chains if not any(step in tried.failed for step in chain)]
            if not todo:
                return self._result(region, planned, wanted, going, tried)
            for chain in todo:
                self._do(region, chain, going, tried)
        region = self._region(name)
        return self._result(region, plan(region, wanted), wanted, going, tried)

    def _region(self, name: str) -> Region:
        region = self._sysfs.region(name)
        if region is None:
            raise Unfit(f"{name} has gone", "RegionMissing")
        return region

    def _do(self, region: Region, chain: tuple[Step, ...], going: frozenset[Span], tried: _Tried) -> None:
        for step in chain:
            if isinstance(step, Unbind) and (users := self._system.users(step.number)):
                tried.failed[step] = f"{step.device} is open in {', '.join(users[:4])}"
                spans = next(one.spans for one in region.devices if one.name == step.device)
                tried.busy.update(dict.fromkeys(going.intersection(spans), ", ".join(users)))
                return
            try:
                self._step(region, step)
            except OSError as error:
                logger.warning("carving %s: %s: %s", region.name, step, error.strerror)
                if isinstance(step, Bind):
                    tried.broken.add(step.device)
                else:
                    tried.failed[step] = error.strerror or str(error)
                return
            logger.info("carving %s: %s", region.name, step)
            if isinstance(step, (Map, Align)):
                # Unless the next look shows otherwise: then nobody asks for it.
                tried.failed[step] = "taken, and not done"

    def _step(self, region: Region, step: Step) -> None:
        write, sysfs = self._system.write, self._sysfs
        match step:
            case Create():
                write(sysfs.region_attribute(region.name, "create"), "1")
            case Align(device, align_bytes):
                write(sysfs.device_attribute(region.name, device, "align"), str(align_bytes))
            case Map(device, span):
                first = region.start + span.offset_bytes
                write(
                    sysfs.device_attribute(region.name, device, "mapping"), f"{first:x}-{first + span.size_bytes - 1:x}"
                )
            case Bind(device):
                try:
                    write(sysfs.driver_attribute("bind"), device)
                except OSError as error:
                    if error.errno == errno.ENODEV:  # the driver does not know it yet
                        write(sysfs.driver_attribute("new_id"), device)
                    elif error.errno != errno.EBUSY:  # it has a driver by now
                        raise
            case Unbind(device):
                write(sysfs.driver_attribute("unbind"), device)
            case Empty(device):
                write(sysfs.device_attribute(region.name, device, "size"), "0")
            case Forget(device):
                with suppress(OSError):
                    write(sysfs.driver_attribute("remove_id"), device)
            case Delete(device):
                # An empty device that stays is taken for the next range.
                with suppress(OSError):
                    write(sysfs.region_attribute(region.name, "delete"), device)
            case _:
                raise TypeError(step)

    @staticmethod
    def _result(
        region: Region, planned: Plan, wanted: frozenset[Span], going: frozenset[Span], tried: _Tried
    ) -> Result:
        refused = dict(planned.refused)
        for span in wanted - planned.done.keys() - refused.keys():
            refused[span] = tried.why()
        busy = dict(tried.busy)
        for span in going.intersection(span for one in region.devices for span in one.spans):
            busy.setdefault(span, "a device that the kernel does not let go")
        return Result(planned.done, refused, busy)


@dataclass(slots=True)
class _Tried:
    """What became of steps, for as long as one carving goes on."""

    failed: dict[Step, str] = field(default_factory=dict)  # and why; not tried again
    broken: set[str] = field(default_factory=set)  # devices that did not take it
    busy: dict[Span, str] = field(default_factory=dict)

    def why(self) -> Unfit:
        """Of a span that is not there, and that plan() had nothing against."""
        in_use = next((why for step, why in self.failed.items() if isinstance(step, Unbind)), None)
        if in_use is not None:
            return Unfit(f"{in_use}, and holds bytes of this pool: end that process first", "RegionInUse")
        reasons = [f"{type(step).__name__} {step.device}: {why}" for step, why in self.failed.items()]
        reasons += [f"{name} does not take the driver device_dax" for name in sorted(self.broken)]
        return Unfit(
            f"the kernel does not carve its range: {'; '.join(reasons[:3]) or 'it changes all the time'}",
            "CarvingFailed",
        )

"""Do all nodes of a pool see the same memory? docs/pool-label.md has the protocol.

The memory of the writer node is the pool's memory: it formats it. Any other node proves that it sees that one by a nonce
in both directions: it finds what the writer wrote lately, and it finds that the writer has seen what it wrote itself. A
copy of the memory fails the second, however fresh it is. The writer names those that do not see its memory; the others go on.
It is confirmed by one that finds what it wrote: before that it says nothing that cannot be taken back.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gismo_deviceplugin.pool.label import Label
from gismo_deviceplugin.pool.view import NodeView, PoolView

PATIENCE_S = 30.0  # for a line of the label that is not what its node said
_SEEN_CHARACTERS = 12  # of a nonce: 63 of them have room in a line


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one look. same: None where it is not known yet."""

    same: bool | None
    why: str = ""  # where it is not
    strangers: tuple[str, ...] = ()  # of the writer: nodes that do not see its memory
    seen: tuple[
        tuple[int, str], ...
    ] = ()  # host id and nonce: of the writer by the others, of those that see it by the writer
    confirmed: bool = False  # of the writer: one of the others that are up finds here what it wrote; or none is up


class Nonces:
    """What this node writes into the memory: one for each pool, drawn anew for each memory and in each boot of the node.

    Not for each start of an agent: that would have to be proven anew each time, with the writer's agent there, and two agents
    side by side, as in an upgrade, would contradict one another.
    """

    def __init__(self, folder: Path, boot_id: str) -> None:
        self._folder = folder
        self._boot_id = boot_id

    def of(self, pool: str, memory: str) -> str:
        """memory: what tells this memory from any other in this boot, as long as it is mounted."""
        path = self._folder / f"nonce-{pool}.json"
        known = {"bootId": self._boot_id, "memory": memory}
        try:
            there = json.loads(path.read_text())
            if {name: there[name] for name in known} == known:
                return str(uuid.UUID(there["nonce"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none yet, or a part of one: a new one does no harm
        nonce = str(uuid.uuid4())
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(".new")
        making.write_text(json.dumps({**known, "nonce": nonce}))
        making.rename(path)
        return nonce


class Proof:
    """What one agent knows of one pool."""

    def __init__(self, boot_id: str, clock: Callable[[], float], patience_s: float = PATIENCE_S) -> None:
        self._boot_id = boot_id
        self._clock = clock
        self._patience_s = patience_s
        self._unequal_since: dict[tuple[str, str], float] = {}  # node and what it said: a nonce, or its layout
        self._proven: str | None = None  # the nonce with which this node was seen

    def of_nothing(self, view: PoolView, *, one_kernel: bool) -> Verdict:
        """Where this node finds no pool at all, and is not to make it: not yet, or never."""
        writer = _writer(view)
        if writer is None or writer.nonce is None or not self._lasts(writer.node, writer.nonce):
            return Verdict(None)
        return Verdict(
            False,
            f"{writer.node} has formatted the pool, and nothing is found here: {_not_the_same(one_kernel=one_kernel)}",
        )

    def of_another_size(self, view: PoolView, *, one_kernel: bool) -> Verdict:
        """Where the label here is of another size, which the writer node puts right: not yet, or in another memory."""
        writer = _writer(view)
        if writer is None or writer.reached is None or writer.reached < view.me.layout_version:
            return Verdict(None)
        if not self._lasts(writer.node, f"size of {view.me.layout_version}"):
            return Verdict(None)
        return Verdict(
            False,
            f"{writer.node} has written the pool's capacity into the pool label, and another is found here: "
            f"{_not_the_same(one_kernel=one_kernel)}",
        )

    def finds_the_writer(self, view: PoolView, label: Label, layout_version: int, *, one_kernel: bool) -> Verdict:
        """One direction alone, by a node that may not write into this label: is what the writer wrote found here?"""
        writer = _writer(view)
        if writer is None or writer.nonce is None:
            return Verdict(None)
        why = self._unlike(writer, label, one_kernel=one_kernel)
        if why:
            return Verdict(False, why)
        if not _is_equal(writer, label):
            return Verdict(None)
        behind = (writer.node, "layout")
        if writer.reached is None or writer.reached <= layout_version:
            self._unequal_since.pop(behind, None)
            return Verdict(True)
        if not self._lasts(*behind):
            return Verdict(None)
        return Verdict(
            False,
            f"{writer.node} has written layout {writer.reached} into the pool label, and {layout_version} is found here, as in a "
            f"copy: {_not_the_same(one_kernel=one_kernel)}",
        )

    def look(self, view: PoolView, label: Label, nonce: str, *, one_kernel: bool) -> Verdict:
        """one_kernel: such memory is of one machine."""
        if view.me.writer:
            return self._of_the_others(view, label, nonce, one_kernel=one_kernel)
        writer = _writer(view)
        if writer is None or writer.nonce is None:
            return Verdict(True if self._proven == nonce else None)  # whoever writes next is asked then
        why = self._unlike(writer, label, one_kernel=one_kernel)
        is_seen = _has_seen(writer, label, view.me.host_id, nonce)
        if not why and view.me.node in writer.strangers and not is_seen:
            why = (
                f"{writer.node}, which formatted the pool, does not find in it what this node wrote: this is a copy, or another "
                f"memory with the same label; {_not_the_same(one_kernel=one_kernel)}"
            )
        if why:
            self._proven = None
            return Verdict(False, why)
        if is_seen:
            self._proven = nonce
        seen = ((writer.host_id, writer.nonce[:_SEEN_CHARACTERS]),) if _is_equal(writer, label) else ()
        return Verdict(True if self._proven == nonce else None, seen=seen)

    def _of_the_others(self, view: PoolView, label: Label, nonce: str, *, one_kernel: bool) -> Verdict:
        strangers, seen = [], []
        up, confirmed = 0, 0
        for other in view.others:
            if other.standing == "Dead" or other.nonce is None:
                continue
            up += other.standing == "Active"  # for one that does not answer it is not waited
            if self._unlike(other, label, one_kernel=one_kernel):
                strangers.append(other.node)
            elif _is_equal(other, label):
                seen.append((other.host_id, other.nonce[:_SEEN_CHARACTERS]))
                confirmed += _has_seen(other, label, view.me.host_id, nonce)
        return Verdict(True, strangers=tuple(strangers), seen=tuple(sorted(seen)), confirmed=confirmed > 0 or not up)

    def _unlike(self, other: NodeView, label: Label, *, one_kernel: bool) -> str:
        """Why the other node sees another memory than this one; empty: it does not, or it is not known yet."""
        if one_kernel and other.boot_id != self._boot_id:
            return (
                f"{other.node} is another machine (boot id {other.boot_id}, here {self._boot_id}), and emulated memory is that of "
                "one machine: take a nodeSelector that selects nodes of one, or a pool with a dax source"
            )
        if _is_equal(other, label):
            self._unequal_since.pop((other.node, str(other.nonce)), None)
            return ""
        if not self._lasts(other.node, str(other.nonce)):
            return ""
        line = label.line(other.host_id)
        found = "nothing" if line is None else f"{line.nonce} of {line.node}"
        return f"{other.node} wrote {other.nonce} into the pool label, and {found} is found here: {_not_the_same(one_kernel=one_kernel)}"

    def _lasts(self, node: str, said: str) -> bool:
        """Is it unequal for longer than can be had from a status that is late?"""
        since = self._unequal_since.setdefault((node, said), self._clock())
        return self._clock() - since >= self._patience_s


def _not_the_same(*, one_kernel: bool) -> str:
    if one_kernel:
        return (
            "it is not the same memory on both nodes. Give this node the one that the others have (emulated: mount one tmpfs, and "
            "share it with all nodes), or take its labels for the pool away"
        )
    return (
        "the region is not the same memory on both nodes. Take this node's labels for the pool away; or make the pool anew, with "
        "a match that means one memory on all of its nodes (by serial)"
    )


def _writer(view: PoolView) -> NodeView | None:
    return next((one for one in view.others if one.writer and one.standing != "Dead"), None)


def _is_equal(other: NodeView, label: Label) -> bool:
    line = label.line(other.host_id)
    return line is not None and (line.node, line.nonce) == (other.node, other.nonce)


def _has_seen(other: NodeView, label: Label, host_id: int, nonce: str) -> bool:
    """Does the line of the other node say that it found that nonce in the line of that host id?"""
    line = label.line(other.host_id)
    return line is not None and dict(line.seen).get(host_id) == nonce[:_SEEN_CHARACTERS]

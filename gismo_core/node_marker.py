"""The marker of a node's state directory, where a node agent prepares it (Kubernetes; docs/kubernetes.md).

A container gets its state directory as a mount, and a container runtime makes a mount's source as an empty directory where
it is gone: after a reboot, a container that starts before the agent would meet nobody there, and take another host's place
in the store. So the agent puts a marker into it, and $GISMO_NODE_MARKER says where it has to be.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from gismo_core.errors import NodeNotReady

VARIABLE = "GISMO_NODE_MARKER"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class NodeMarker:
    """What the agent says of this node and one store."""

    host_id: int
    boot_id: str
    store_uuid: uuid.UUID

    def text(self) -> str:
        """As it stands in the file."""
        fields = {
            "format": _FORMAT,
            "hostId": self.host_id,
            "bootId": self.boot_id,
            "storeUUID": str(self.store_uuid),
        }
        return json.dumps(fields) + "\n"


def boot_id() -> str:
    """Of the kernel that runs; the same in every container of a machine."""
    return _BOOT_ID.read_text().strip()


def parse(text: str) -> NodeMarker:
    """What stands in a marker. ValueError where it is none, or of another format."""
    try:
        fields = json.loads(text)
        if fields["format"] != _FORMAT:
            raise ValueError(f"format {fields['format']}, and this version of gismo_core knows {_FORMAT}")
        return NodeMarker(int(fields["hostId"]), str(fields["bootId"]), uuid.UUID(fields["storeUUID"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def read(path: Path) -> NodeMarker:
    """The marker there. NodeNotReady where it is missing, not to be understood, or of an earlier boot."""
    try:
        marker = parse(path.read_text())
    except FileNotFoundError:
        raise NodeNotReady(
            f"the node's agent has not prepared {path.parent}: it has no {path.name}. Start the container again when the GismoNode of "
            "this node is Ready (`kubectl get gnode`)"
        ) from None
    except OSError as error:
        raise NodeNotReady(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise NodeNotReady(f"{path} cannot be understood: {error}") from error
    if marker.boot_id != boot_id():
        raise NodeNotReady(
            f"{path} is of an earlier boot of this node: its agent has not prepared the store again. Start the container again when the "
            "GismoNode of this node is Ready (`kubectl get gnode`)"
        )
    return marker


def given(store: str) -> NodeMarker | None:
    """The marker that holds for a store, as it is named, of this process; None where no agent prepares things here."""
    path = os.environ.get(VARIABLE)
    return read(Path(path)) if path and store == os.environ.get("GISMO_STORE") else None


def check(marker: NodeMarker, found: uuid.UUID) -> None:
    """Is this the store that the marker is of? NodeNotReady, if not."""
    if marker.store_uuid != found:
        raise NodeNotReady(
            f"the memory holds store {found}, and the node's agent prepared {marker.store_uuid}: delete the pod, so that a new one gets "
            "a share of the store that is there now"
        )

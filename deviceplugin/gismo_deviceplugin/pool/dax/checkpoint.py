"""What an agent has carved in this boot of the node, so that one that is started anew knows what is its own.

It holds spans and the stores that they are for, and nothing that sysfs can be asked. A device dies with the boot, and so
does the file, which lies on a tmpfs and carries the boot id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gismo_deviceplugin.pool.dax.region import Span
from gismo_deviceplugin.pool.medium import Unfit

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Carved:
    """A span of a region of this node, and the store that it is for."""

    region: str
    span: Span
    store_uuid: str


class Checkpoint:
    """The file. Written by who holds the carving lock."""

    def __init__(self, path: Path, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id

    def read(self) -> frozenset[Carved]:
        """Unfit where it cannot be read: what is not known to be ours is nobody's to free."""
        try:
            text = json.loads(self._path.read_text())
            if text["format"] > FORMAT:
                raise Unfit(
                    f"{self._path} has format {text['format']}, and this agent knows {FORMAT}: install the newer version of Gismo "
                    "again",
                    "CheckpointUnreadable",
                )
            if text["bootId"] != self._boot_id:
                return frozenset()
            return frozenset(
                Carved(str(one["region"]), Span(int(one["offsetBytes"]), int(one["sizeBytes"])), str(one["storeUUID"]))
                for one in text["devices"]
            )
        except FileNotFoundError:
            return frozenset()
        except (ValueError, KeyError, TypeError) as error:
            raise Unfit(
                f"{self._path} cannot be read ({error!r}): remove it when no pod of this node has a share of a DAX pool",
                "CheckpointUnreadable",
            ) from error

    def write(self, carved: frozenset[Carved]) -> None:
        """As a whole, or not at all."""
        text = {
            "format": FORMAT,
            "bootId": self._boot_id,
            "devices": [_text(one) for one in sorted(carved, key=_order)],
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        making = self._path.with_name(f".{self._path.name}")
        with making.open("w") as file:
            json.dump(text, file)
            file.flush()
            os.fsync(file.fileno())
        making.replace(self._path)


def _order(one: Carved) -> tuple[str, Span]:
    return one.region, one.span


def _text(one: Carved) -> Mapping[str, object]:
    return {
        "region": one.region,
        "offsetBytes": one.span.offset_bytes,
        "sizeBytes": one.span.size_bytes,
        "storeUUID": one.store_uuid,
    }

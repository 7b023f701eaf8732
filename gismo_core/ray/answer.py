"""What a raylet answers to a scan, taken apart only as far as a scan looks.

The answer to GetNodeStats lists each entry of each worker's reference table, tens of thousands in all, and hardly any is
of interest: the scan asks which tokens are *not* there. So the entries are not made into messages. They are received as
the bytes that they are on the wire, and NumPy compares the IDs in them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from gismo_core.ray.record import TOKEN_BYTES as ID_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PREFIX = bytes([1 << 3 | 2, ID_BYTES])  # how an entry begins on the wire: field 1, of that many bytes
_METHOD = "GetNodeStats"


class Call(NamedTuple):
    """How to call GetNodeStats of Ray's NodeManagerService."""

    path: str  # of the method, as grpc wants it
    serialize: Callable[[Any], bytes]
    deserialize: Callable[[bytes], Any]


@functools.cache
def call() -> Call:
    """The call whose answer has `object_refs` as bytes. AttributeError or KeyError where Ray's is shaped otherwise."""
    from ray.core.generated import node_manager_pb2

    service = node_manager_pb2.DESCRIPTOR.services_by_name["NodeManagerService"]
    method = service.methods_by_name[_METHOD]
    return Call(
        f"/{service.full_name}/{method.name}",
        node_manager_pb2.GetNodeStatsRequest.SerializeToString,
        _lean(method.output_type).FromString,
    )


@functools.cache
def entry_class() -> Any:
    """The message that one entry is: ObjectRefInfo."""
    from ray.core.generated import common_pb2

    return common_pb2.ObjectRefInfo


def entry(row: bytes) -> Any:
    """One entry as a message."""
    return entry_class().FromString(row)


def _lean(reply: Any) -> Any:
    """The class of a message that is GetNodeStatsReply on the wire, without what is not a number, a string or bytes
    and with each entry of a reference table as bytes (which is what a message inside another is). reply: a descriptor.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

    file = descriptor_pb2.FileDescriptorProto(name="gismo/scan.proto", package="gismo.scan", syntax="proto3")
    for name, source, into in (
        ("Reply", reply, {"core_workers_stats": ".gismo.scan.Worker"}),
        ("Worker", reply.fields_by_name["core_workers_stats"].message_type, {"object_refs": None}),
    ):
        message, whole = file.message_type.add(name=name), descriptor_pb2.DescriptorProto()
        source.CopyToProto(whole)
        for field in whole.field:
            if field.name in into:
                field.ClearField("type_name")
                if name_of_type := into[field.name]:
                    field.type, field.type_name = Field.TYPE_MESSAGE, name_of_type
                else:
                    field.type = Field.TYPE_BYTES
            elif field.type == Field.TYPE_ENUM:
                field.type = Field.TYPE_INT32
                field.ClearField("type_name")
            elif field.type in (Field.TYPE_MESSAGE, Field.TYPE_GROUP):
                continue
            field.ClearField("oneof_index")
            field.ClearField("proto3_optional")
            message.field.append(field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("gismo.scan.Reply")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # protobuf before 4.22


def ids(rows: Sequence[bytes]) -> NDArray[np.uint8]:
    """The object IDs of entries, as an array of [entries, 28]; zeros for one without."""
    import numpy as np

    if not rows:
        return np.zeros((0, ID_BYTES), np.uint8)
    size = len(_PREFIX) + ID_BYTES
    lengths = np.fromiter(map(len, rows), np.intp, len(rows))
    if int(lengths.min()) >= size:
        flat = np.frombuffer(b"".join(rows), np.uint8)
        heads = np.lib.stride_tricks.sliding_window_view(flat, size)[np.cumsum(lengths) - lengths]
        if (heads[:, : len(_PREFIX)] == np.frombuffer(_PREFIX, np.uint8)).all():
            in_order: NDArray[np.uint8] = heads[:, len(_PREFIX) :]
            return in_order
    # Protobuf promises no order of the fields of a message, nor do all objects have to have an ID of that length.
    found = [entry(row).object_id for row in rows]
    flat = np.frombuffer(b"".join(one if len(one) == ID_BYTES else bytes(ID_BYTES) for one in found), np.uint8)
    return flat.reshape(-1, ID_BYTES)


def each(rows: Sequence[bytes], found: NDArray[np.uint8]) -> Iterator[tuple[bytes, bytes]]:
    """(object ID, entry) of each. found: ids(rows)."""
    joined = found.tobytes()
    return zip((joined[at : at + ID_BYTES] for at in range(0, len(joined), ID_BYTES)), rows, strict=True)


def missing(tokens: Collection[bytes], found: NDArray[np.uint8]) -> frozenset[bytes]:
    """Those of the tokens that are not among the IDs found.

    Compares digests of 64 bits, with factors of this process's own: were two ever the same, a token would be taken for
    one that is there, and its record be kept.
    """
    import numpy as np

    if not len(found) or not tokens:
        return frozenset(tokens)
    wanted = _digests(np.frombuffer(b"".join(tokens), np.uint8).reshape(-1, ID_BYTES))
    there = _digests(found)
    there.sort()
    order = np.argsort(wanted)  # looked up in their order, a third of the time
    at = np.searchsorted(there, wanted[order])
    at[at == len(there)] = 0
    is_missing = np.empty(len(wanted), bool)
    is_missing[order] = there[at] != wanted[order]
    return frozenset(compress(tokens, is_missing))


@functools.cache
def _factors() -> NDArray[np.uint64]:
    import numpy as np

    factors: NDArray[np.uint64] = np.frombuffer(os.urandom(8 * (ID_BYTES // 4)), np.uint64) | np.uint64(1)
    return factors


def _digests(of: NDArray[np.uint8]) -> NDArray[np.uint64]:
    import numpy as np

    words = np.ascontiguousarray(of).view(np.uint32).astype(np.uint64)
    digests: NDArray[np.uint64] = words @ _factors()
    return digests

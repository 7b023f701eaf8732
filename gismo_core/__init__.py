"""Gismo: one object, one copy, every host. A shared-memory object store for CXL pools, without a daemon.

>>> import gismo_core
>>> info = gismo_core.format("/dev/shm/pool", size=1 << 30)
>>> with gismo_core.open("/dev/shm/pool") as store:
...     handle = store.put(b"hello")
...     bytes(store.get(handle))
b'hello'
"""

from typing import TYPE_CHECKING, Any

from gismo_core.errors import (
    CorruptStore,
    Fenced,
    GismoError,
    HostIdInUse,
    Incompatible,
    InvalidArgument,
    MediaError,
    NameNotFound,
    NameTaken,
    NodeNotReady,
    NotAStore,
    ObjectGone,
    PartnerLost,
    PartnerMissing,
    StoreBusy,
    StoreClosed,
    StoreExists,
    StoreFull,
    StorePermissionError,
    SystemCallError,
    Unsupported,
)
from gismo_core.handles import Handle
from gismo_core.store import Store, format, open, probe
from gismo_core.views import Draft, View

if TYPE_CHECKING:
    from gismo_core.records import (
        Finding,
        FsckReport,
        Holder,
        HostInfo,
        HostState,
        LitmusCount,
        LitmusOutcome,
        LitmusVerdict,
        ObjectInfo,
        ObjectState,
        ProcessInfo,
        SealedObject,
        Severity,
        Stats,
        StoreInfo,
        TagInfo,
    )

__all__ = [
    "CorruptStore",
    "Draft",
    "Fenced",
    "Finding",
    "FsckReport",
    "GismoError",
    "Handle",
    "Holder",
    "HostIdInUse",
    "HostInfo",
    "HostState",
    "Incompatible",
    "InvalidArgument",
    "LitmusCount",
    "LitmusOutcome",
    "LitmusVerdict",
    "MediaError",
    "NameNotFound",
    "NameTaken",
    "NodeNotReady",
    "NotAStore",
    "ObjectGone",
    "ObjectInfo",
    "ObjectState",
    "PartnerLost",
    "PartnerMissing",
    "ProcessInfo",
    "SealedObject",
    "Severity",
    "Stats",
    "Store",
    "StoreBusy",
    "StoreClosed",
    "StoreExists",
    "StoreFull",
    "StoreInfo",
    "StorePermissionError",
    "SystemCallError",
    "TagInfo",
    "Unsupported",
    "View",
    "format",
    "open",
    "probe",
]


def __getattr__(name: str) -> Any:
    # What takes half of the time of an import, and hardly any process asks for: what the store tells about itself, and
    # the metadata of the distribution.
    if name in __all__:
        from gismo_core import records

        return getattr(records, name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    from gismo_core import _native

    try:
        return metadata.version("gismo-cxl")
    except metadata.PackageNotFoundError:  # injected into an image as plain files
        return _native.load().version


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Gismo: one object, one copy, every host. A shared-memory object store for CXL pools, without a daemon.

>>> import gismo_core
>>> info = gismo_core.format("/dev/shm/pool", size=1 << 30)
>>> with gismo_core.open("/dev/shm/pool") as store:
...     handle = store.put(b"hello")
...     bytes(store.get(handle))
b'hello'
"""

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
    NotAStore,
    ObjectGone,
    StoreBusy,
    StoreClosed,
    StoreExists,
    StoreFull,
    StorePermissionError,
    SystemCallError,
    Unsupported,
)
from gismo_core.handles import Handle
from gismo_core.records import (
    Finding,
    FsckReport,
    Holder,
    HostInfo,
    HostState,
    ObjectInfo,
    ObjectState,
    ProcessInfo,
    SealedObject,
    Severity,
    Stats,
    StoreInfo,
    TagInfo,
)
from gismo_core.store import Store, format, open, probe
from gismo_core.views import Draft, View

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
    "MediaError",
    "NameNotFound",
    "NameTaken",
    "NotAStore",
    "ObjectGone",
    "ObjectInfo",
    "ObjectState",
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


def __getattr__(name: str) -> str:
    # Reading the metadata takes longer than the rest of the import, and hardly anybody asks.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    from gismo_core import _native

    try:
        return metadata.version("gismo-cxl")
    except metadata.PackageNotFoundError:  # injected into an image as plain files
        return _native.load().version

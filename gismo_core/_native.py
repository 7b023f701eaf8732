"""The ctypes binding of libgismo.so (gismo.h). Nothing outside this package should need it.

Every function is bound twice where it matters: by PyDLL (keeps the GIL: a call that takes nanoseconds is over
before another thread could have had it) and by CDLL (gives the GIL away: copies, flushes, waits, scans).
The core never calls back into Python with a lock held, so a PyDLL call cannot deadlock on one.
"""

from __future__ import annotations

import ctypes as c
import platform
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gismo_core import errors

ABI_VERSION = 7
NAME_MAX = 255
BUFFERS_MAX = 1048576

SEAL_CRC = 1
FSCK_VERIFY = 1
FSCK_REPAIR = 2
FSCK_TELL = 4
EVICT_CONFIRMED_OFF = 1
EVICT_FORCE = 2
FSCK_PROGRESS = 4
LITMUS_BYTES = 4096

u8, u32, u64, i32, i64, ptr = c.c_uint8, c.c_uint32, c.c_uint64, c.c_int32, c.c_int64, c.c_void_p


class Detail(c.Structure):
    _fields_ = [
        ("asked_bytes", u64),
        ("free_bytes", u64),
        ("largest_free_bytes", u64),
        ("free_objects", u64),
        ("sys_errno", i32),
        ("reserved", i32),
    ]


class FormatOptions(c.Structure):
    _fields_ = [
        ("size_bytes", u64),
        ("max_objects", u64),
        ("max_hosts", u32),
        ("coherence", u32),
        ("mode", u32),
        ("force", u32),
        ("populate", u32),
        ("reserved", u32),
        ("store_uuid", u8 * 16),
    ]


class OpenOptions(c.Structure):
    _fields_ = [
        ("state_dir", c.c_char_p),
        ("host_id", i32),
        ("read_only", u32),
        ("no_thread", u32),
        ("restarted", u32),
    ]


class Info(c.Structure):
    _fields_ = [
        ("store_uuid", u8 * 16),
        ("size_bytes", u64),
        ("data_bytes", u64),
        ("max_objects", u64),
        ("created_unix_ns", u64),
        ("arena_bytes", u64),
        ("arenas", u32),
        ("slot_groups", u32),
        ("max_hosts", u32),
        ("coherence", u32),
        ("format_version", u32),
        ("is_dax", u32),
        ("feature_compat", u64),
        ("feature_ro_compat", u64),
        ("feature_incompat", u64),
    ]


class CHandle(c.Structure):
    _fields_ = [
        ("store_uuid", u8 * 16),
        ("generation", u64),
        ("offset", u64),
        ("length", u64),
        ("slot", u32),
        ("lane", u32),
    ]


HANDLE_BYTES = c.sizeof(CHandle)


class CreateOptions(c.Structure):
    _fields_ = [
        ("name", c.c_char_p),
        ("name_bytes", u32),
        ("buffers", u32),
        ("buffer_bytes", c.POINTER(u64)),
        ("tag", u64),
        ("wait_ns", i64),
    ]


class CObject(c.Structure):
    _fields_ = [("handle", CHandle), ("data", u64), ("private_", u64 * 2)]


class CBuffer(c.Structure):
    _fields_ = [("data", ptr), ("length", u64)]


# A gismo_handle whose bytes, `.raw`, are quicker to get than a structure's.
CRawHandle = c.c_char * c.sizeof(CHandle)


class CView(c.Structure):
    _fields_ = [
        ("data", u64),  # an address; not c_void_p, which would read as None for 0
        ("length", u64),
        ("generation", u64),
        ("tag", u64),
        ("created_unix_ns", u64),
        ("slot", u32),
        ("buffers", u32),
        ("name_bytes", u32),
        ("payload_crc", u32),
        ("has_crc", u32),
        ("lane", u32),
    ]


class CObjectInfo(c.Structure):
    _fields_ = [
        ("handle", CHandle),
        ("tag", u64),
        ("created_unix_ns", u64),
        ("extent_bytes", u64),
        ("pinned_lanes", u64),
        ("state", u32),
        ("payload_crc", u32),
        ("has_crc", u32),
        ("creator", u32),
        ("owner_lane", u32),
        ("pins_here", u32),
        ("buffers", u32),
        ("name_bytes", u32),
        ("name", c.c_char * 256),
    ]


class CBrief(c.Structure):
    _fields_ = [("handle", CHandle), ("tag", u64), ("pins_here", u32), ("change", u32)]


class CStats(c.Structure):
    _fields_ = [
        ("data_bytes", u64),
        ("used_bytes", u64),
        ("free_bytes", u64),
        ("largest_free_bytes", u64),
        ("sealed_objects", u64),
        ("writing_objects", u64),
        ("deleted_objects", u64),
        ("free_objects", u64),
        ("pins_here", u64),
        ("puts", u64),
        ("gets", u64),
        ("deletes", u64),
        ("put_bytes", u64),
        ("get_bytes", u64),
        ("recovered_processes", u64),
        ("recovered_objects", u64),
        ("lane", u32),
        ("processes", u32),
        ("arenas_owned", u32),
        ("groups_owned", u32),
    ]


class CLitmusVerdict(c.Structure):
    _fields_ = [
        ("tested_unix_ns", u64),
        ("rounds", u32 * 4),
        ("violations", u32 * 4),
        ("partner_boot_id", u8 * 16),
        ("partner_host", u32),
        ("outcome", u32),
        ("reasons", u32),
        ("reserved", u32),
    ]


class CLitmus(c.Structure):
    _fields_ = [
        ("own", ptr),
        ("other", ptr),
        ("rounds", u64),
        ("limit_ns", u64),
        ("test", u32),
        ("flawed", u32),
        ("done", u64),
        ("violations", u64),
        ("contended", u64),
        ("idle_ns", u64),
        ("private_", u64 * 8),
    ]


class CHostInfo(c.Structure):
    _fields_ = [
        ("host_id", u32),
        ("state", u32),
        ("incarnation", u64),
        ("heartbeat", u64),
        ("heartbeat_unix_ns", u64),
        ("joined_unix_ns", u64),
        ("boot_id", u8 * 16),
        ("state_dir_uuid", u8 * 16),
        ("used_bytes", u64),
        ("objects", u64),
        ("arenas", u32),
        ("groups", u32),
        ("is_self", u32),
        ("silent_samples", u32),
        ("litmus", CLitmusVerdict),
    ]


class CEvictResult(c.Structure):
    _fields_ = [
        ("state", u32),
        ("silent_samples", u32),
        ("objects", u64),
        ("object_bytes", u64),
        ("left", u64),
    ]


class CProcessInfo(c.Structure):
    _fields_ = [
        ("index", u32),
        ("is_self", u32),
        ("epoch", u64),
        ("pid", i64),
        ("joined_unix_ns", u64),
        ("puts", u64),
        ("gets", u64),
        ("deletes", u64),
        ("put_bytes", u64),
        ("get_bytes", u64),
        ("pins", u64),
        ("writing", u64),
        ("alive", u32),
        ("chunks", u32),
        ("command", c.c_char * 64),
    ]


class CFsckResult(c.Structure):
    _fields_ = [
        ("objects", u64),
        ("payloads_verified", u64),
        ("notes", u64),
        ("warnings", u64),
        ("errors", u64),
        ("repaired", u64),
        ("leaked_bytes", u64),
    ]


ProgressFunction = c.CFUNCTYPE(c.c_int, u64, u64, ptr)
FsckFunction = c.CFUNCTYPE(None, u32, c.c_char_p, c.c_char_p, u64, ptr)


class PyBuffer(c.Structure):
    """Py_buffer of CPython (Include/cpython/object.h), unchanged from 3.3 on."""

    _fields_ = [
        ("buf", ptr),
        ("obj", ptr),
        ("len", c.c_ssize_t),
        ("itemsize", c.c_ssize_t),
        ("readonly", c.c_int),
        ("ndim", c.c_int),
        ("format", c.c_char_p),
        ("shape", ptr),
        ("strides", ptr),
        ("suboffsets", ptr),
        ("internal", ptr),
    ]


py_get_buffer = c.PYFUNCTYPE(c.c_int, c.py_object, c.POINTER(PyBuffer), c.c_int)(("PyObject_GetBuffer", c.pythonapi))
py_release_buffer = c.PYFUNCTYPE(None, c.POINTER(PyBuffer))(("PyBuffer_Release", c.pythonapi))

# name: (argument types, result type)
_P = c.POINTER
_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "abi_version": ([], u32),
    "version": ([], c.c_char_p),
    "status_name": ([c.c_int], c.c_char_p),
    "error_message": ([], c.c_char_p),
    "error_detail": ([_P(Detail)], None),
    "format": ([c.c_char_p, _P(FormatOptions), ProgressFunction, ptr, c.c_char_p], c.c_int),
    "open": ([c.c_char_p, _P(OpenOptions), _P(ptr)], c.c_int),
    "close": ([ptr], c.c_int),
    "free": ([ptr], None),
    "probe": ([c.c_char_p, _P(Info)], c.c_int),
    "state_dir": ([ptr], c.c_char_p),
    "get_info": ([ptr, _P(Info)], c.c_int),
    "create": ([ptr, u64, _P(CreateOptions), _P(CObject)], c.c_int),
    "write": ([ptr, _P(CObject), u64, ptr, u64], c.c_int),
    "seal": ([ptr, _P(CObject), u32], c.c_int),
    "abort": ([ptr, _P(CObject)], c.c_int),
    "put": ([ptr, _P(CBuffer), u32, _P(CreateOptions), _P(CHandle)], c.c_int),
    "put_one": ([ptr, c.c_char_p, u32, _P(CreateOptions), _P(CHandle)], c.c_int),
    "get": ([ptr, c.c_char_p, _P(CView)], c.c_int),
    "release": ([ptr, u32], c.c_int),
    "retain": ([ptr, u32], c.c_int),
    "view_buffers": ([ptr, _P(CView), _P(u64)], c.c_int),
    "view_name": ([ptr, _P(CView), c.c_char_p], c.c_int),
    "view_verify": ([ptr, _P(CView)], c.c_int),
    "delete": ([ptr, c.c_char_p], c.c_int),
    "lookup": ([ptr, c.c_char_p, u32, i64, _P(CHandle)], c.c_int),
    "find_pinned": ([ptr, ptr, _P(CHandle)], c.c_int),
    "next": ([ptr, _P(u64), _P(CObjectInfo)], c.c_int),
    "list": ([ptr, _P(u64), u64, u64, ptr, u32], c.c_int),
    "follow": ([ptr, _P(u64), u64, u64, ptr, ptr, u32], c.c_int),
    "peek": ([ptr, c.c_char_p, u64, u64, c.c_char_p], c.c_int),
    "peek_many": ([ptr, c.c_char_p, u32, u64, c.c_char_p, _P(c.c_int)], c.c_int),
    "get_stats": ([ptr, _P(CStats)], c.c_int),
    "host": ([ptr, u32, _P(CHostInfo)], c.c_int),
    "process": ([ptr, _P(u32), _P(CProcessInfo)], c.c_int),
    "evict_host": ([ptr, u32, c.c_char_p, u32, _P(CEvictResult)], c.c_int),
    "fsck": ([ptr, u32, FsckFunction, ptr, _P(CFsckResult)], c.c_int),
    "tick": ([ptr], c.c_int),
    "litmus_begin": ([ptr], c.c_int),
    "litmus_say": ([ptr, u32, u64], c.c_int),
    "litmus_hear": ([ptr, u32, _P(u64)], c.c_int),
    "litmus_run": ([_P(CLitmus), u64], c.c_int),
    "litmus_record": ([ptr, _P(CLitmusVerdict)], c.c_int),
    "copy": ([ptr, ptr, u64, c.c_int, c.c_int, _P(u32)], None),
    "sync": ([ptr, u64], None),
    "crc32c": ([u32, ptr, u64], u32),
    "cpu_features": ([], u32),
}
# Over before another thread could have had the GIL; gismo_close keeps it for another reason, see NativeStore.
_QUICK = (
    "create",
    "write",
    "seal",
    "abort",
    "get",
    "release",
    "retain",
    "delete",
    "next",
    "close",
    "error_message",
    "error_detail",
)


class Functions:
    """The functions of the core as attributes without their prefix: `functions.get` is gismo_get."""

    def __init__(self, dll: c.CDLL, names: tuple[str, ...]) -> None:
        for name in names:
            function = dll["gismo_" + name]  # a fresh object per index, so that prototypes are not shared
            function.argtypes, function.restype = _SIGNATURES[name]
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., Any]:  # for the type checker; all exist in __dict__
        raise AttributeError(name)


class Library:
    """libgismo.so: `slow` gives the GIL away during a call, `quick` keeps it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            dll = c.CDLL(str(path))
            quick = c.PyDLL(str(path))
        except OSError as error:
            raise errors.Unsupported(f"{path} cannot be loaded: {error}; install gismo-cxl again") from error
        try:
            abi_version = dll.gismo_abi_version
        except AttributeError:
            raise errors.Incompatible(f"{path} is not libgismo.so; install gismo-cxl again") from None
        abi_version.restype = u32
        if abi_version() != ABI_VERSION:
            raise errors.Incompatible(
                f"{path} has ABI {abi_version()}, this binding needs {ABI_VERSION}: "
                "gismo_core and libgismo.so come from different versions; install gismo-cxl again"
            )
        self.slow = Functions(dll, tuple(_SIGNATURES))
        self.quick = Functions(quick, _QUICK)
        # Without argtypes an int goes as a C int, bytes and arrays as pointers and a c_void_p as it is, which halves
        # the cost of the calls of every cycle that take no 64-bit integers.
        self.release = quick["gismo_release"]
        self.delete = quick["gismo_delete"]
        self.put_one = quick["gismo_put_one"]
        # An array of gismo_buffer is cheaper made as an array of numbers, which the type of its own would refuse.
        flat_put: list[Any] = [ptr, ptr, u32, _P(CreateOptions), _P(CHandle)]
        self.quick_put = quick["gismo_put"]
        self.quick_put.argtypes = flat_put
        self.slow_put = dll["gismo_put"]
        self.slow_put.argtypes = flat_put

    @property
    def version(self) -> str:
        """Of the core, as it was built."""
        return str(self.slow.version().decode())

    def error(self, status: int, **context: Any) -> errors.GismoError:
        """The exception for `status`, from this thread's last message and numbers."""
        message = self.quick.error_message().decode("utf-8", "replace")
        detail = Detail()
        self.quick.error_detail(detail)
        return errors.from_status(
            status,
            message,
            sys_errno=detail.sys_errno,
            asked_bytes=detail.asked_bytes,
            free_bytes=detail.free_bytes,
            largest_free_bytes=detail.largest_free_bytes,
            free_objects=detail.free_objects,
            **context,
        )


def candidates() -> list[Path]:
    """Where libgismo.so may lie, in the order in which it is looked for."""
    relative = Path("_lib") / "libgismo.so"
    folders = [Path(__file__).parent]
    package = sys.modules.get("gismo_core")
    # An editable install keeps the sources here and the built file in site-packages.
    folders += [Path(entry) for entry in getattr(package, "__path__", [])]
    folders += [Path(entry) / "gismo_core" for entry in sys.path if entry]
    return list(dict.fromkeys(folder / relative for folder in folders))


_loaded: Library | None = None
_load_lock = threading.Lock()


def load(path: str | Path | None = None) -> Library:
    """The library, loaded once per process. `path` is for tests and takes effect only on the first call."""
    global _loaded
    if _loaded is not None:
        return _loaded
    with _load_lock:
        if _loaded is None:
            _loaded = Library(_find() if path is None else Path(path))
        return _loaded


def _find() -> Path:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64") or sys.maxsize < 2**32:
        raise errors.Unsupported(
            f"gismo works on 64-bit Linux on x86-64 only, and this is {sys.platform} on {platform.machine()}"
        )
    tried = candidates()
    for candidate in tried:
        if candidate.is_file():
            return candidate
    raise errors.Unsupported(
        "libgismo.so is not built: run `make setup` in a checkout, or `pip install gismo-cxl`; looked for it at "
        + ", ".join(str(candidate) for candidate in tried[:4])
    )

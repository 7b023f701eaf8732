"""The ctypes binding says of gismo.h what the compiler says of it."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import gismo_core
from gismo_core import _native, errors

FOLDER = Path(gismo_core.__file__).parent / "native"
STRUCTS = {
    "gismo_detail": _native.Detail,
    "gismo_format_options": _native.FormatOptions,
    "gismo_open_options": _native.OpenOptions,
    "gismo_info": _native.Info,
    "gismo_handle": _native.CHandle,
    "gismo_create_options": _native.CreateOptions,
    "gismo_object": _native.CObject,
    "gismo_buffer": _native.CBuffer,
    "gismo_view": _native.CView,
    "gismo_object_info": _native.CObjectInfo,
    "gismo_brief": _native.CBrief,
    "gismo_stats": _native.CStats,
    "gismo_litmus_verdict": _native.CLitmusVerdict,
    "gismo_litmus": _native.CLitmus,
    "gismo_host_info": _native.CHostInfo,
    "gismo_process_info": _native.CProcessInfo,
    "gismo_evict_result": _native.CEvictResult,
    "gismo_fsck_result": _native.CFsckResult,
}


def test_every_struct_is_laid_out_as_in_c(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    lines = ["#include <stdio.h>", '#include "gismo.h"', "int main(void) {"]
    expected = []
    for name, struct in STRUCTS.items():
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        expected.append(f"{name} {ctypes.sizeof(struct)}")
        for field in struct._fields_:
            descriptor = getattr(struct, field[0])
            lines.append(
                f'printf("{name}.{field[0]} %zu %zu\\n", offsetof({name}, {field[0]}), sizeof((({name} *)0)->{field[0]}));'
            )
            expected.append(f"{name}.{field[0]} {descriptor.offset} {descriptor.size}")
    source = tmp_path / "layout.c"
    source.write_text("\n".join([*lines, "return 0; }"]))
    program = tmp_path / "layout"
    subprocess.run([compiler, "-I", str(FOLDER), str(source), "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    assert printed.split("\n")[:-1] == expected


def test_no_field_of_the_header_is_missing() -> None:
    header = re.sub(r"/\*.*?\*/", "", (FOLDER / "gismo.h").read_text(), flags=re.DOTALL)
    found = re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", header, flags=re.DOTALL)
    assert {name for name, _ in found} == set(STRUCTS)
    for name, body in found:
        fields = re.findall(r"(\w+)(?:\[\w+\])?\s*[,;]", body)
        assert fields == [field[0] for field in STRUCTS[name]._fields_], name


def test_every_function_of_the_header_is_bound() -> None:
    header = re.sub(r"/\*.*?\*/", "", (FOLDER / "gismo.h").read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"^GISMO_API [^(]*?gismo_(\w+)\(", header, flags=re.MULTILINE))
    assert declared == set(_native._SIGNATURES)


def test_constants() -> None:
    header = (FOLDER / "gismo.h").read_text()
    for name, value in (
        ("GISMO_ABI_VERSION", _native.ABI_VERSION),
        ("GISMO_NAME_MAX", _native.NAME_MAX),
        ("GISMO_BUFFERS_MAX", _native.BUFFERS_MAX),
        ("GISMO_SEAL_CRC =", _native.SEAL_CRC),
        ("GISMO_FSCK_VERIFY =", _native.FSCK_VERIFY),
        ("GISMO_FSCK_REPAIR =", _native.FSCK_REPAIR),
        ("GISMO_LITMUS_BYTES", _native.LITMUS_BYTES),
    ):
        assert re.search(rf"{name} {value}u?\b", header), name


def test_a_library_that_is_none(tmp_path: Path) -> None:
    nothing = tmp_path / "libgismo.so"
    nothing.write_bytes(b"not an ELF file")
    with pytest.raises(errors.Unsupported, match="install"):
        _native.Library(nothing)


def test_a_library_of_another_abi(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "other.c", tmp_path / "libother.so"
    source.write_text("unsigned gismo_abi_version(void) { return 999; }")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    with pytest.raises(errors.Incompatible, match="999"):
        _native.Library(library)
    source.write_text("int nothing;")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    with pytest.raises(errors.Incompatible):
        _native.Library(library)


def test_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(errors.Unsupported, match="x86-64"):
        _native._find()


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "candidates", lambda: [Path("/nonexistent/libgismo.so")])
    with pytest.raises(errors.Unsupported, match="make setup"):
        _native._find()

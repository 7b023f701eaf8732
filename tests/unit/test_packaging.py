"""What is shipped: libgismo.so loads on every glibc from 2.28 on, knows no Python, hides what is its own, and flushes.

Each check reads the installed file with binutils, and is shown to fail on a library made wrong on purpose.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

GLIBC_FLOOR = (2, 28)
ALLOWED_LIBRARIES = {"libc.so.6", "libpthread.so.0", "libdl.so.2", "libm.so.6", "librt.so.1", "ld-linux-x86-64.so.2"}
THIRD_PARTY = {"click", "numpy", "pandas", "pyarrow", "ray", "rich", "torch", "vineyard"}


def output_of(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope="module")
def library() -> Path:
    spec = importlib.util.find_spec("gismo_core")
    assert spec is not None, "gismo_core is not installed: run `make setup`"
    assert spec.origin is not None, "gismo_core has no __init__.py"
    path = Path(spec.origin).parent / "_lib" / "libgismo.so"
    assert path.is_file(), f"{path} is not there: run `make build` and read what it says"
    return path


# ---- the checks: each gives what is wrong, nothing when all is well ----


def too_new_symbols(library: Path) -> list[str]:
    """Symbols that the library takes from a glibc newer than GLIBC_FLOOR."""
    bad = []
    for line in output_of("objdump", "-T", str(library)).splitlines():
        match = re.search(r"\*UND\*.*\(?GLIBC_([0-9.]+)\)?\s+(\S+)$", line)
        if match and tuple(map(int, match[1].split("."))) > GLIBC_FLOOR:
            bad.append(f"{match[2]}@GLIBC_{match[1]}")
        elif "GLIBC_PRIVATE" in line or "GLIBC_ABI_DT_RELR" in line:
            bad.append(line.split()[-1])
    return bad


def too_new_needs(library: Path) -> list[str]:
    """The same from the version references, which also name what no symbol carries (GLIBC_ABI_DT_RELR)."""
    names = set(re.findall(r"Name: (GLIBC_\S+)", output_of("readelf", "-W", "-V", str(library))))
    assert names, f"readelf -V shows no glibc version in {library}"
    plain = {name: re.fullmatch(r"GLIBC_([0-9.]+)", name) for name in names}
    return sorted(n for n, m in plain.items() if m is None or tuple(map(int, m[1].split("."))) > GLIBC_FLOOR)


def python_symbols(library: Path) -> list[str]:
    names = re.findall(r"\*UND\*.*\s(_?Py\w*)$", output_of("objdump", "-T", str(library)), re.MULTILINE)
    return sorted(names)


def foreign_exports(library: Path) -> list[str]:
    """Defined dynamic symbols that do not begin with gismo_."""
    lines = output_of("nm", "-D", "--defined-only", "--format=posix", str(library)).splitlines()
    names = [line.split()[0] for line in lines if line]
    assert names, f"{library} exports nothing"
    return [name for name in names if not name.startswith("gismo_")]


def foreign_libraries(library: Path) -> list[str]:
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output_of("readelf", "-W", "-d", str(library)))
    assert needed, f"{library} needs no library at all"
    return sorted(set(needed) - ALLOWED_LIBRARIES)


def missing_instructions(library: Path) -> list[str]:
    """Of the instructions that carry bytes to memory, those that the object code lacks."""
    opcodes = set(
        re.findall(r"^\s+[0-9a-f]+:\t(?:(?:lock|rep\w*|notrack|bnd) )*(\w+)", disassembly(library), re.MULTILINE)
    )
    wanted = {
        "clwb": {"clwb"},
        "clflushopt": {"clflushopt"},
        "a non-temporal store": {"movntdq", "vmovntdq", "movnti", "vmovntps", "movntps"},
        "sfence": {"sfence"},
        "mfence": {"mfence"},
    }
    return [name for name, any_of in wanted.items() if not any_of & opcodes]


def disassembly(library: Path) -> str:
    return output_of("objdump", "-d", "--no-show-raw-insn", str(library))


# ---- on what is installed ----


def test_glibc_floor(library: Path) -> None:
    assert too_new_symbols(library) == []
    assert too_new_needs(library) == []


def test_no_python_inside(library: Path) -> None:
    assert python_symbols(library) == []


def test_exports_are_gismos_own(library: Path) -> None:
    assert foreign_exports(library) == []


def test_needs_only_the_c_library(library: Path) -> None:
    assert foreign_libraries(library) == []


def test_flushes_are_in_the_object_code(library: Path) -> None:
    assert missing_instructions(library) == []


def test_hardened(library: Path) -> None:
    dynamic = output_of("readelf", "-W", "-d", str(library))
    assert "BIND_NOW" in dynamic
    assert "GNU_RELRO" in output_of("readelf", "-W", "-l", str(library))
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic
    assert not re.search(r"GNU_STACK.* RWE ", output_of("readelf", "-W", "-l", str(library)))


def test_version_is_one(library: Path) -> None:
    code = f"import ctypes; f = ctypes.CDLL({str(library)!r}).gismo_version; f.restype = ctypes.c_char_p; print(f().decode())"
    assert output_of(sys.executable, "-c", code).strip() == importlib.metadata.version("gismo-cxl")


def test_import_takes_nothing_but_the_standard_library() -> None:
    code = f"import sys, gismo_core; print(*sorted({THIRD_PARTY!r} & set(sys.modules)))"
    assert output_of(sys.executable, "-c", code).split() == []


# ---- on what is wrong: a check that cannot fail is no check ----


@pytest.fixture(scope="module")
def wrong_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    source = folder / "wrong.c"
    # A symbol too new for the floor is made by hand, so that the check is tried on any build machine.
    source.write_text(
        'extern int from_python(void) __asm__("PyErr_CheckSignals");\n'
        "extern int too_new(void);\n"
        "int not_ours(void) { return from_python() + too_new(); }\n"
    )
    newer = folder / "newer.c"
    newer.write_text("int too_new(void) { return 1; }\n")
    versions = folder / "newer.map"
    versions.write_text("GLIBC_2.99 { global: too_new; local: *; };\n")
    provider, library = folder / "libnewer.so", folder / "libwrong.so"
    compile_library = ["gcc", "-shared", "-fPIC", "-O2"]
    script = f"-Wl,--version-script={versions}"
    subprocess.run([*compile_library, str(newer), script, "-Wl,-soname,libnewer.so", "-o", str(provider)], check=True)
    subprocess.run([*compile_library, str(source), str(provider), "-o", str(library)], check=True)
    return library


def test_each_check_can_fail(wrong_library: Path) -> None:
    assert too_new_symbols(wrong_library) == ["too_new@GLIBC_2.99"]
    assert too_new_needs(wrong_library) == ["GLIBC_2.99"]
    assert python_symbols(wrong_library) == ["PyErr_CheckSignals"]
    assert foreign_exports(wrong_library) == ["not_ours"]
    assert foreign_libraries(wrong_library) == ["libnewer.so"]
    assert len(missing_instructions(wrong_library)) == 5

"""FORMAT.md is true to the code: its tables of offsets and sizes against the structures of format.h."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import gismo_core

FOLDER = Path(gismo_core.__file__).parent
FORMAT = FOLDER / "FORMAT.md"
HEADER = FOLDER / "native" / "format.h"

# Heading of a table of offset, size, field in FORMAT.md: the structure. What pads a structure has no row.
TABLES = {
    "### Superblock": "fmt_superblock",
    "### Litmus line": "fmt_litmus",
    "### Agreed register": "fmt_register_half",
    "### Chunk header": "fmt_chunk",
    "### Slot ": "fmt_slot",
}


def rows(heading: str) -> list[tuple[int, int, str]]:
    """(offset, size, what is said of it) of the first table below a heading."""
    text = FORMAT.read_text()
    section = text[text.index("\n" + heading) + 1 :].split("\n#", 1)[0]
    found = re.findall(r"^\| (\d+) \| (\d+) \| (.*?) \|", section, flags=re.MULTILINE)
    assert found, heading
    return [(int(offset), int(size), what) for offset, size, what in found]


def members(structure: str) -> list[str]:
    """Names of the fields as declared, padding left out."""
    header = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    (body,) = re.findall(rf"struct {structure} \{{(.*?)\n\}};", header, flags=re.DOTALL)
    names = re.findall(r"(\w+)(?:\[[^\]]*\])?\s*[,;]", body)
    return [name for name in names if not re.match(r"pad|reserved", name)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, int, int]]]:
    """(name, offset, size) of each field, as the compiler sees it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("layout")
    lines = [
        f'printf("{structure} {name} %zu %zu\\n", offsetof(struct {structure}, {name}), '
        f"sizeof ((struct {structure} *)0)->{name});"
        for structure in TABLES.values()
        for name in members(structure)
    ]
    source = folder / "layout.c"
    source.write_text("#include <stdio.h>\n#include <format.h>\nint main(void) {\n" + "\n".join(lines) + "\n}\n")
    subprocess.run([compiler, "-I", str(HEADER.parent), str(source), "-o", str(folder / "layout")], check=True)
    said = subprocess.run([str(folder / "layout")], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[tuple[str, int, int]]] = {}
    for line in said.splitlines():
        structure, name, offset, size = line.split()
        found.setdefault(structure, []).append((name, int(offset), int(size)))
    return found


@pytest.mark.parametrize("heading", TABLES)
def test_tables_of_fields(heading: str, layout: dict[str, list[tuple[str, int, int]]]) -> None:
    fields = layout[TABLES[heading]]
    written = rows(heading)
    assert [(offset, size) for offset, size, _ in written] == [(offset, size) for _, offset, size in fields]
    if heading == "### Superblock":
        assert [what for _, _, what in written] == [name for name, _, _ in fields]


def test_every_field_is_asserted() -> None:
    """Whoever moves a field is told by the compiler."""
    header = HEADER.read_text()
    structures = re.findall(r"^struct (fmt_\w+) \{", header, flags=re.MULTILINE)
    for structure in set(structures) - {"fmt_shape", "fmt_register_line"}:
        for name in members(structure):
            assert re.search(rf"offsetof\(struct {structure}, {name}\) ==", header), (structure, name)
    for structure in set(structures) - {"fmt_shape", "fmt_register_half"}:
        assert re.search(rf"sizeof\(struct {structure}\) ==", header), structure

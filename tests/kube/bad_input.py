"""The tables of docs/bad-input.md, for the tests that try every row."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "bad-input.md"

Row = dict[str, str]


def rows(table: str) -> list[Row]:
    """Of the table between the marks of that name: column → text. Text that is nothing but code is without its backticks."""
    text = _DOCUMENT.read_text()
    found = re.search(rf"<!-- {table}: begin; .*? -->\n(.*?)<!-- {table}: end -->", text, re.DOTALL)
    assert found, table
    head, _, *body = (_cells(line) for line in found[1].strip().splitlines())
    assert body
    assert all(len(cells) == len(head) for cells in body), table
    assert len({cells[0] for cells in body}) == len(body), "two rows of one name"
    return [dict(zip(head, cells, strict=True)) for cells in body]


def _cells(line: str) -> list[str]:
    return [re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip().strip("|").split(" |")]


def changed(good: dict[str, Any], given: str) -> dict[str, Any]:
    """A good manifest with one thing otherwise, such as "spec.namespaces[0].size: 4Gi"; null takes the field away."""
    path, _, value = given.partition(": ")
    *way, last = (int(step) if step.isdecimal() else step for step in re.findall(r"[^.\[\]]+", path))
    made = deepcopy(good)
    here: Any = made
    for step in way:
        here = here.setdefault(step, {}) if isinstance(step, str) else here[step]
    parsed = yaml.safe_load(value)
    if parsed is None:
        del here[last]
    else:
        here[last] = parsed
    return made


def says(said: str, row: str) -> bool:
    """Are these the words of the row? … stands for some."""
    return re.fullmatch(".+".join(re.escape(part) for part in row.split("…")), said, re.DOTALL) is not None

"""A table in a document that long runs add to, between two marks: <!-- NAME: begin; … --> and <!-- NAME: end -->."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MarkedTable:
    """One such table: its marks and its two head lines."""

    begin: str
    end: str
    head: str

    def rows(self, text: str) -> list[str]:
        """The lines between the marks of a document, head and all; none where it has no table yet."""
        return self._parts(text)[1].splitlines()

    def put(self, text: str, body: str) -> str:
        """The document with these lines in the place of the old ones, or with a table at its end."""
        before, _, after = self._parts(text)
        return f"{before}{self.begin}\n{self.head}\n{body}\n{self.end}{after}"

    def _parts(self, text: str) -> tuple[str, str, str]:
        before, begin, rest = text.partition(self.begin)
        if not begin:
            return text.rstrip("\n") + "\n\n", "", "\n"
        table, _, after = rest.partition(self.end)
        return before, table, after


def replace_file(path: Path, text: str) -> None:
    """In one step: who is killed meanwhile leaves the old document."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)

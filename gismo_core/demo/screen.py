"""What a person sees while the demo runs: lines, one live table, a progress bar. rich where it is there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from gismo_core.cli.output import table_text
from gismo_core.demo.report import Check

Columns = Sequence[str]
Rows = Sequence[Sequence[str]]


class Screen(Protocol):
    """Headings that begin with '>' are right-aligned."""

    def act(self, title: str) -> None:
        """A new part begins."""

    def say(self, text: str) -> None:
        """One line."""

    def check(self, check: Check) -> None:
        """One thing that had to hold."""

    def table(self, columns: Columns, rows: Rows) -> None:
        """A table that stays."""

    def live(self) -> contextlib.AbstractContextManager[Callable[[Columns, Rows], None]]:
        """Gives show(columns, rows), which shows a table in place of the last one; the last one stays."""

    def progress(self, what: str, total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Gives update(done)."""


class SilentScreen:
    """For --json."""

    def act(self, title: str) -> None: ...

    def say(self, text: str) -> None: ...

    def check(self, check: Check) -> None: ...

    def table(self, columns: Columns, rows: Rows) -> None: ...

    @contextlib.contextmanager
    def live(self) -> Iterator[Callable[[Columns, Rows], None]]:
        yield lambda columns, rows: None

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: None


class PlainScreen:
    """Any terminal, and files: a table is written over the last one only where it is seen by a person."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()

    def act(self, title: str) -> None:
        self.say(f"\n== {title}")

    def say(self, text: str) -> None:
        print(text, flush=True)

    def check(self, check: Check) -> None:
        self.say(f"   {'ok    ' if check.ok else 'FAILED'}  {check.what}: {check.found}")

    def table(self, columns: Columns, rows: Rows) -> None:
        self.say(_indented(columns, rows))

    @contextlib.contextmanager
    def live(self) -> Iterator[Callable[[Columns, Rows], None]]:
        last = ""

        def show(columns: Columns, rows: Rows) -> None:
            nonlocal last
            before, last = last, _indented(columns, rows)
            if self._terminal:
                up = f"\x1b[{before.count(chr(10)) + 1}A\x1b[J" if before else ""
                self.say(up + last)

        yield show
        if not self._terminal and last:
            self.say(last)

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        def update(done: int) -> None:
            if self._terminal:
                print(f"\r   {what} {100 * done // max(1, total):3d} %", end="", flush=True)

        yield update
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)


def _indented(columns: Columns, rows: Rows) -> str:
    return "\n".join(f"   {line}" for line in table_text(columns, rows).split("\n"))


class RichScreen:
    """With colours, for people."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def act(self, title: str) -> None:
        from rich.text import Text

        self._console.print()
        self._console.print(Text(title, style="bold cyan"))

    def say(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)

    def check(self, check: Check) -> None:
        from rich.text import Text

        mark = ("   ✓ ", "green") if check.ok else ("   ✗ FAILED ", "bold red")
        self._console.print(Text.assemble(mark, check.what, (f": {check.found}", "dim" if check.ok else "red")))

    def table(self, columns: Columns, rows: Rows) -> None:
        self._console.print(self._table(columns, rows))

    @staticmethod
    def _table(columns: Columns, rows: Rows) -> Any:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, header_style="bold")
        for column in columns:
            table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        return table

    @contextlib.contextmanager
    def live(self) -> Iterator[Callable[[Columns, Rows], None]]:
        from rich.live import Live

        with Live(console=self._console, auto_refresh=False) as live:
            yield lambda columns, rows: live.update(self._table(columns, rows), refresh=True)

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("   {task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        with Progress(*columns, TransferSpeedColumn(), console=self._console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)


def make_screen(*, silent: bool) -> Screen:
    """What fits: nothing, colours, or plain lines."""
    if silent:
        return SilentScreen()
    if sys.stdout.isatty():
        try:
            return RichScreen()
        except ImportError:
            pass
    return PlainScreen()

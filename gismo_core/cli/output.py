"""How things are shown: tables, JSON, sizes, times, progress. rich where it is there and a person looks."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import json
import re
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import click

from gismo_core.handles import Handle

_UNITS = {
    "": 1,
    "b": 1,
    **{prefix + "ib": 1024**power for power, prefix in enumerate("kmgtp", 1)},
    **{prefix: 1024**power for power, prefix in enumerate("kmgtp", 1)},
    **{prefix + "b": 1000**power for power, prefix in enumerate("kmgtp", 1)},
}


if TYPE_CHECKING:
    _ParamType = click.ParamType[int]
else:  # not generic before click 8.4
    _ParamType = click.ParamType


class Size(_ParamType):
    """A number of bytes as people write it: 4GiB, 512M, 1.5g (binary), 10GB (decimal), 65536."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
        unit = _UNITS.get(match.group(2).lower()) if match else None
        if match is None or unit is None:
            self.fail(f"{value!r} is no size; write for example 4GiB, 512MiB, 10GB or 65536", param, ctx)
        number = match.group(1)
        return int(float(number) * unit) if "." in number else int(number) * unit


SIZE = Size()


def size_text(nbytes: int) -> str:
    """4294967296 -> '4 GiB'."""
    value = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB" if value != int(value) else f"{value:.0f} TiB"


def time_text(unix_ns: int) -> str:
    """Local time to the second; '-' for never."""
    if not unix_ns:
        return "-"
    try:
        return datetime.datetime.fromtimestamp(unix_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{unix_ns} ns"  # a field of a damaged store can say anything


def age_text(unix_ns: int) -> str:
    """How long ago: '5s', '3m', '2h', '4d'."""
    seconds = max(0.0, time.time() - unix_ns / 1e9)
    for limit, divisor, unit in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def plain(value: Any) -> Any:
    """A record as what JSON knows: UUIDs and handles as text, enums by name, records as objects."""
    if isinstance(value, Handle):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, uuid.UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(plain(value), indent=2 if sys.stdout.isatty() else None))


def show_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Aligned `name  value` lines."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{name:<{width}}  {value}")


def visible(text: str) -> str:
    """Names and commands are other people's words: what would steer the terminal or break a table is spelt out."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; a heading that begins with '>' is right-aligned."""
    rows = [[visible(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and (table := _rich_table(columns, rows)) is not None:
        from rich.console import Console

        console = Console()
        # As wide as it needs: a handle that is cut or folded into a column cannot be copied.
        needed = console.measure(table, options=console.options.update(width=10_000)).maximum
        Console(width=max(console.width, needed)).print(table)
        return
    click.echo(table_text(columns, rows))


def table_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table without colours or lines, for pipes and where rich is absent."""
    rows = [[visible(cell) for cell in row] for row in rows]
    headings = [column.lstrip(">") for column in columns]
    widths = [max(len(row[i]) for row in (headings, *rows)) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        ).rstrip()

    return "\n".join([line(headings), *map(line, rows)])


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    try:
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
        table.add_column(column.lstrip(">"), justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


class Update(Protocol):
    """update(done_bytes, total_bytes): the total as well where it became known only on the way."""

    def __call__(self, done_bytes: int, total_bytes: int | None = None) -> None: ...


@contextlib.contextmanager
def progress(what: str, total_bytes: int | None, *, wanted: bool = True) -> Iterator[Update]:
    """Gives an Update. Shown on standard error, to people only, and only for what takes a while."""
    if not wanted or (total_bytes is not None and total_bytes < 64 * 1024**2) or not sys.stderr.isatty():
        yield _no_update
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        started_s = time.monotonic()
        total = total_bytes

        def plain_update(done_bytes: int, total_bytes: int | None = None) -> None:
            nonlocal total
            total = total_bytes or total
            rate = done_bytes / max(1e-9, time.monotonic() - started_s)
            share = f"{100 * done_bytes // total:3d} %" if total else size_text(done_bytes)
            click.echo(f"\r{what} {share}  {size_text(int(rate))}/s ", nl=False, err=True)

        yield plain_update
        click.echo("", err=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total_bytes)

        def update(done_bytes: int, total_bytes: int | None = None) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        yield update


def _no_update(done_bytes: int, total_bytes: int | None = None) -> None:
    pass

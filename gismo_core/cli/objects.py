"""gismo ls, put, get, rm: objects."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import sys
from typing import BinaryIO

import click

from gismo_core.cli import exits
from gismo_core.cli.options import Seconds, host_options, json_option, open_store, open_to_look, resolve, store_argument
from gismo_core.cli.output import age_text, progress, show_json, show_table, size_text
from gismo_core.errors import MediaError, NameNotFound, ObjectGone
from gismo_core.handles import Handle
from gismo_core.records import ObjectState
from gismo_core.store import Store

_CHUNK_BYTES = 16 * 1024**2


@click.command("ls", epilog=exits.HELP)
@store_argument
@click.option("--tag", type=click.IntRange(0), help="Only objects with this tag.")
@click.option(
    "--all",
    "show_all",
    is_flag=True,
    help="Also objects being written, and deleted ones whose room is not used again yet.",
)
@click.option("--limit", type=click.IntRange(1), help="At most as many.")
@json_option
def ls_command(store: str, tag: int | None, show_all: bool, limit: int | None, as_json: bool) -> None:
    """List objects."""
    with open_to_look(store) as opened:
        found = (
            one
            for one in opened.objects()
            if (show_all or one.state == ObjectState.SEALED) and (tag is None or one.tag == tag)
        )
        objects = list(itertools.islice(found, limit))
    if as_json:
        show_json(objects)
        return
    show_table(
        (">size", "state", ">age", ">tag", ">host", ">pins", "name", "handle"),
        [
            (
                size_text(one.nbytes),
                one.state.name.lower(),
                age_text(one.created_unix_ns),
                str(one.tag),
                str(one.owner_lane),
                str(one.pins_here),
                one.name or "-",
                str(one.handle),
            )
            for one in objects
        ],
    )


@click.command("put", epilog=exits.HELP)
@click.argument("store", metavar="STORE")
@click.argument("file", metavar="FILE|-", type=click.Path(allow_dash=True, dir_okay=False))
@click.option("--name", help="A name to find it by; refused if an object has it.")
@click.option("--tag", type=click.IntRange(0, 2**64 - 1), default=0, help="A number to account it to.")
@click.option("--wait", "wait_s", type=Seconds(), help="When full, wait this many seconds for room.")
@host_options
@json_option
def put_command(
    store: str,
    file: str,
    name: str | None,
    tag: int,
    wait_s: float | None,
    host_id: int | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Copy FILE (- for standard input) into the store and print its handle."""
    with open_store(store, host_id=host_id, state_dir=state_dir) as opened:
        if file == "-":
            if sys.stdin is None:
                raise click.UsageError("standard input is closed: name a file")
            handle = _put(opened, sys.stdin.buffer, name, tag, wait_s)
        else:
            with open(file, "rb", buffering=0) as source:
                handle = _put(opened, source, name, tag, wait_s)
    if as_json:
        show_json({"handle": handle, "nbytes": handle.length})
    else:
        click.echo(str(handle))


def _put(store: Store, source: BinaryIO, name: str | None, tag: int, wait_s: float | None) -> Handle:
    status = os.fstat(source.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        # A pipe, or a file like those in /proc that says 0: the length is known only at the end.
        # No more is read than fits, so that what never ends (yes | gismo put STORE -) ends as a full store.
        data = bytearray()
        while len(data) <= store.info.data_bytes and (part := source.read(_CHUNK_BYTES)):
            data += part
        return store.put(data, name=name, tag=tag, wait_s=wait_s)
    total = max(0, status.st_size - source.tell())
    with store.create(total, name=name, tag=tag, wait_s=wait_s) as draft, progress("copying", total) as update:
        done = 0
        while done < total:
            with draft.buffer[done : done + _CHUNK_BYTES] as window:
                try:
                    got = source.readinto(window)  # type: ignore[attr-defined]
                except OSError as error:
                    if error.errno != errno.EFAULT:
                        raise
                    # The kernel's way to say SIGBUS where it is the one who writes.
                    raise MediaError(
                        f"the medium of {store.path} failed: it was truncated or unbound", errno.EFAULT
                    ) from error
            if not got:
                raise OSError(f"the file became shorter while it was read: {done} of {total} bytes; put it again")
            done += got
            update(done)
        return draft.seal(crc=True)


@click.command("get", epilog=exits.HELP)
@click.argument("store", metavar="STORE")
@click.argument("what", metavar="HANDLE|NAME")
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), help="Write there, not to stdout.")
@click.option("--wait", "wait_s", type=Seconds(), help="Wait this many seconds for the name to appear.")
@host_options
@json_option
def get_command(
    store: str,
    what: str,
    output: str | None,
    wait_s: float | None,
    host_id: int | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Write an object to standard output, or to a file.

    --json describes it instead of printing it; with -o it does both.
    """
    with open_store(store, host_id=host_id, state_dir=state_dir) as opened:
        handle = resolve(opened, what, wait_s)
        with opened.get(handle) as view:
            described = {
                "handle": view.handle,
                "nbytes": view.nbytes,
                "name": view.name,
                "tag": view.tag,
                "created_unix_ns": view.created_unix_ns,
                "buffers": [part.nbytes for part in view.buffers],
            }
            if output is not None and output != "-":
                _write_file(view.data, output)
            elif not as_json:
                _write(view.data, sys.stdout.buffer)
    if as_json:
        show_json(described)


def _write_file(data: memoryview, output: str) -> None:
    """A file that we made and could not fill is taken away: half an object looks like one."""
    existed = os.path.lexists(output)
    with open(output, "wb", buffering=0) as target:
        try:
            _write(data, target)
        except BaseException as error:
            if not existed:
                os.unlink(output)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, output) from error
            raise


def _write(data: memoryview, target: BinaryIO) -> None:
    with progress("copying", len(data)) as update:
        done = 0
        while done < len(data):
            written = target.write(data[done : done + _CHUNK_BYTES])
            done += written
            update(done)
    target.flush()


@click.command("rm", epilog=exits.HELP)
@click.argument("store", metavar="STORE")
@click.argument("what", metavar="HANDLE|NAME...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every object of every host.")
@click.option("--tag", type=click.IntRange(0), help="With --all: only objects with this tag.")
@click.option("--force", is_flag=True, help="Do not ask; no error for what is gone already.")
@host_options
@json_option
def rm_command(
    store: str,
    what: tuple[str, ...],
    everything: bool,
    tag: int | None,
    force: bool,
    host_id: int | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Delete objects. Who is reading one keeps it until done; then its room comes back."""
    if everything == bool(what):
        raise click.UsageError("name the objects to delete, or say --all")
    if tag is not None and not everything:
        raise click.UsageError("--tag goes with --all")
    with open_store(store, host_id=host_id, state_dir=state_dir) as opened:
        deleted: list[Handle] = []
        if everything:
            chosen = [
                one.handle
                for one in opened.objects()
                if one.state == ObjectState.SEALED and (tag is None or one.tag == tag)
            ]
            if chosen and not force:
                if as_json or not sys.stdin.isatty():
                    raise click.UsageError(f"--all would delete {len(chosen)} objects: add --force")
                click.confirm(f"delete {len(chosen)} objects of {store}?", abort=True)
            deleted += [handle for handle in chosen if _delete(opened, handle, missing_ok=True)]
        for text in what:
            try:
                handle = resolve(opened, text)
            except NameNotFound:
                if not force:
                    raise
                continue
            if _delete(opened, handle, missing_ok=force):
                deleted.append(handle)
    if as_json:
        show_json({"deleted": deleted})
    elif everything:
        click.echo(f"{len(deleted)} objects deleted")


def _delete(store: Store, handle: Handle, missing_ok: bool) -> bool:
    try:
        store.delete(handle)
    except ObjectGone:
        if not missing_ok:
            raise
        return False
    return True

"""`python3 -m gismo_deviceplugin.pool.dax.wipe REGION`: zero both ends of a region, where a pool label would be.

For memory that holds something that nobody needs any more, which an agent never writes over by itself (HoldsOtherData), or the
label of a pool that is gone, whose memory another pool is to have (PoolsOverlap). Run on one node, in its agent's container. It
refuses a region whose label has a range: that one is ended by deleting the pool.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable

from gismo_core import node_marker
from gismo_deviceplugin.pool.dax.pool import DaxPool
from gismo_deviceplugin.pool.dax.region import Match
from gismo_deviceplugin.pool.label import Label, State
from gismo_deviceplugin.pool.media import Media
from gismo_deviceplugin.pool.medium import Unfit
from gismo_deviceplugin.pool.records import TooNew


def wipe(memory: DaxPool, ask: Callable[[str], str]) -> None:
    """Unfit, and nothing is changed, where it holds ranges of a pool, or the answer is not the region's name."""
    memory.check()
    name = memory.region.name
    with contextlib.closing(memory.open_label()) as ends:
        try:
            layout = Label(ends).layout()
        except TooNew as error:
            raise Unfit(f"{name} holds a pool: {error}") from error
        left = [one for one in layout.ranges if one.state is not State.ZEROED] if layout is not None else []
        if layout is not None and left:
            namespaces = ", ".join(one.namespace for one in left)
            raise Unfit(
                f"{name} holds the pool {layout.pool} with {namespaces}: delete the GismoPool, and wait until they are gone"
            )
        if ask(f"What is in {name} is lost on all hosts that share it. Write its name to go on: ").strip() != name:
            raise Unfit(f"that was not {name}: nothing was changed")
        for end in (ends.head, ends.tail):
            end.zero()


def main(arguments: list[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="wipe", description="Zero both ends of a CXL region that holds no range of a pool."
    )
    parser.add_argument("region", help="name of the region in Linux, such as region0")
    given = parser.parse_args(arguments)
    memory = Media(node_marker.boot_id())(Match(region=given.region))
    if not isinstance(memory, DaxPool):
        raise TypeError(f"a Match means CXL memory, not {memory}")
    try:
        wipe(memory, input)
    except (Unfit, OSError) as error:
        print(f"wipe: {error}", file=sys.stderr)
        return 1
    print(f"both ends of {given.region} are zero")
    return 0


if __name__ == "__main__":
    sys.exit(main())

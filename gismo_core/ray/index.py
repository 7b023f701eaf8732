"""The records of one cluster, by what collecting asks of them.

A scan is made every second or so among tens of thousands of records of which some hundred are new or gone, so nothing
here is proportional to all records but what C does on whole sets and dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from gismo_core.ray.record import Header, Kind


class Index:
    """Raw handle → header, and what can be looked up. `generation` counts listings: each record knows its first one."""

    __slots__ = ("_born", "_by_raw", "_owned", "generation", "naming", "returns")

    def __init__(self) -> None:
        self.generation = 0
        self.returns: dict[bytes, Header] = {}  # of tasks, by raw handle
        self.naming: dict[bytes, Header] = {}  # those that name foreign extents
        self._by_raw: dict[bytes, Header] = {}
        self._born: dict[bytes, int] = {}
        # Token of all but returns → raw handles; more than one where a retried task made the same again.
        self._owned: dict[bytes, tuple[bytes, ...]] = {}

    def __len__(self) -> int:
        return len(self._by_raw)

    def __contains__(self, raw: bytes) -> bool:
        return raw in self._by_raw

    def raws(self) -> Set[bytes]:
        """The raw handles of all."""
        return self._by_raw.keys()

    def headers(self) -> tuple[Header, ...]:
        """All headers, as of now; from any thread."""
        return tuple(self._by_raw.copy().values())

    def owned(self) -> dict[bytes, tuple[bytes, ...]]:
        """Tokens of all records but returns → the raw handles of the records."""
        return self._owned

    def known_since(self, raw: bytes, generation: int) -> bool:
        """Was this record listed by the listing of that generation, or before?"""
        return self._born[raw] <= generation

    def add(self, raw: bytes, header: Header) -> None:
        """One that this generation lists first."""
        token = header.token
        self._by_raw[raw] = header
        self._born[raw] = self.generation
        if header.foreign:
            self.naming[raw] = header
        if header.kind is Kind.RETURN:
            self.returns[raw] = header
        else:
            self._owned[token] = (*self._owned.get(token, ()), raw)

    def remove(self, raws: Iterable[bytes]) -> None:
        """Those that are gone."""
        for raw in raws:
            token = self._by_raw.pop(raw).token
            del self._born[raw]
            self.naming.pop(raw, None)
            if self.returns.pop(raw, None) is None:
                rest = tuple(one for one in self._owned[token] if one != raw)
                if rest:
                    self._owned[token] = rest
                else:
                    del self._owned[token]

"""``gismo bench``: what the store is measured by.

A row of the table is one :class:`~gismo_core.bench.result.Row`; rows that are measured together (because one is
the other's baseline, or because one death gives two figures) form a :class:`~gismo_core.bench.group.Group`, which
runs in a process and a store of its own. The loops that must not run in Python are in ``native/bench``.
"""

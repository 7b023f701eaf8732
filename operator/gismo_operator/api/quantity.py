"""Sizes as Kubernetes writes them ("4Gi"), as whole bytes."""

from __future__ import annotations

from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

MIB = 1024**2
_SUFFIXES = ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki")


def to_bytes(text: int | str) -> int:
    """Bytes of a quantity; ValueError for one that is none, or is no whole number of bytes."""
    value: Decimal = parse_quantity(text)
    if value != value.to_integral_value():
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(value)


def from_bytes(nbytes: int) -> str:
    """The shortest way to write it exactly: 4294967296 → "4Gi"."""
    for power, suffix in zip(range(len(_SUFFIXES), 0, -1), _SUFFIXES, strict=True):
        unit = 1024**power
        if nbytes and nbytes % unit == 0:
            return f"{nbytes // unit}{suffix}"
    return str(nbytes)

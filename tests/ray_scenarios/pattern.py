"""What the arrays of the scenarios hold: words that follow from a seed, so that any part of any array can be checked."""

from __future__ import annotations

from typing import Any

import numpy as np

WORD_BYTES = 8
POISON = 0xDBDBDBDBDBDBDBDB  # what the keeper writes over what it frees, see gismo_core/ray/keeper.py
SHIFT = 1 << 32
_STEP = np.uint64(0x9E3779B97F4A7C15)


def array(seed: int, nbytes: int, start: int = 0) -> Any:
    """`nbytes` (a multiple of 8) of the pattern, from word `start` on."""
    return (np.arange(start, start + nbytes // WORD_BYTES, dtype=np.uint64) + np.uint64(seed)) * _STEP


def shifted(value: Any) -> Any:
    """From array(seed, ...) a new array that is array(seed + SHIFT, ...)."""
    return value + np.uint64(SHIFT * int(_STEP) % (1 << 64))


def fault(value: Any, seed: int, nbytes: int, start: int = 0) -> str | None:
    """What is wrong with a value that should be array(seed, nbytes, start); None if nothing is."""
    if isinstance(value, str):
        return value  # the task that should have made it found something wrong
    if not isinstance(value, np.ndarray) or value.dtype != np.uint64:
        return f"seed {seed}: {type(value).__name__} came instead of an array"
    if value.nbytes != nbytes:
        return f"seed {seed}: {value.nbytes} bytes came instead of {nbytes}"
    wrong = np.flatnonzero(value != array(seed, nbytes, start))
    if not len(wrong):
        return None
    freed = np.count_nonzero(value == np.uint64(POISON))
    return f"seed {seed}: {len(wrong)} of {len(value)} words are wrong, {freed} of them are those of a freed record"

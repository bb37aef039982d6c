"""Ascending sets of 64-bit numbers as bytes (entry numbers in a reclaim)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mailpod.errors import Corrupt


def pack(numbers: Iterable[int]) -> bytes:
    """Differences, u64 little endian: compresses well with the operations around it."""
    column = np.array(sorted(numbers), dtype="<u8")
    if len(column):
        column[1:] = np.diff(column)
    return column.tobytes()


def unpack(data: bytes) -> NDArray[np.uint64]:
    """Raises `Corrupt` for what is no ascending set."""
    if len(data) % 8:
        raise Corrupt("numbers: length")
    column = np.cumsum(np.frombuffer(data, dtype="<u8"), dtype=np.uint64)
    if len(column) > 1 and not bool((column[1:] > column[:-1]).all()):
        raise Corrupt("numbers: order")
    return column

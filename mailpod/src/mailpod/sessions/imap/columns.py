"""Summary columns: finding text in all of them at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mailpod.store.types import BlobColumn, Rows


def column_cells(column: BlobColumn, rows: Rows) -> list[bytes]:
    """The values of `rows`."""
    blob = column.blob
    lows, highs = column.offsets[rows].tolist(), column.offsets[rows + 1].tolist()
    return [blob[low:high] for low, high in zip(lows, highs, strict=True)]


def cells_containing(column: BlobColumn, needle: bytes) -> NDArray[np.bool_]:
    """Which values contain `needle`: one search over all of them, then which value each place is in. Empty: all."""
    count = len(column.offsets) - 1
    if not needle:
        return np.ones(count, np.bool_)
    find = column.blob.find
    places: list[int] = []
    at = find(needle)
    while at >= 0:
        places.append(at)
        at = find(needle, at + 1)
    mask = np.zeros(count, np.bool_)
    if places:
        starts = np.array(places, np.int64)
        cells = np.searchsorted(column.offsets, starts, side="right") - 1
        mask[cells[starts + len(needle) <= column.offsets[cells + 1]]] = True  # not across the border of two values
    return mask

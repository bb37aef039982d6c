"""Columns of text as rows of 4-byte cells padded with NUL: many short texts laid out side by side by numpy, NULs deleted at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.uint32] | NDArray[np.int64] | NDArray[np.uint64]
Cells: TypeAlias = NDArray[np.uint32]  # shape (rows, width)


def _digit_table() -> NDArray[np.uint32]:
    """Cells of four digits: entry i without leading zeros (0 is empty), entry 10,000 + i with them."""
    table = np.zeros((20_000, 4), np.uint8)
    value = np.arange(10_000)
    for place in range(4):
        unit = 10 ** (3 - place)
        digit = (value // unit % 10 + ord("0")).astype(np.uint8)
        table[10_000:, place] = digit
        table[:10_000, place] = np.where(value >= unit, digit, 0)
    return table.view(np.uint32).reshape(-1)


_DIGITS: Final = _digit_table()
ZERO_CELL: Final = np.frombuffer(b"\0\0\x000", np.uint32)[0]
"""The number 0, which `number_cells` leaves empty."""


def text_cells(texts: Sequence[bytes]) -> Cells:
    """One row for each of `texts`, as wide as the longest needs."""
    width = -(-max(map(len, texts)) // 4) * 4
    return np.frombuffer(b"".join([text.ljust(width, b"\0") for text in texts]), np.uint32).reshape(len(texts), width // 4)


def number_cells(numbers: Numbers) -> Cells:
    """One row for each of `numbers` (not negative, at least one of them) in decimal; 0 is empty."""
    largest = int(numbers.max())
    rest: NDArray[Any] = numbers.astype(np.uint32 if largest < 2**32 else np.uint64, copy=False)
    groups = -(-len(str(largest)) // 4)
    out = np.empty((len(numbers), groups), np.uint32)
    for place in range(groups - 1, 0, -1):
        high = rest // 10_000
        low = rest - high * 10_000
        low += (high > 0) * rest.dtype.type(10_000)  # zeros are kept where more digits stand before them
        out[:, place] = _DIGITS.take(low)
        rest = high
    out[:, 0] = _DIGITS.take(rest)
    return out


def join_cells(parts: Sequence[Cells], rows: int) -> bytes:
    """The rows one after another, each the texts of `parts` side by side; a part of one row stands in every row."""
    matrix = np.empty((rows, sum(part.shape[1] for part in parts)), np.uint32)
    column = 0
    for part in parts:
        matrix[:, column : column + part.shape[1]] = part
        column += part.shape[1]
    return matrix.tobytes().translate(None, b"\0")

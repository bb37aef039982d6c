"""Sets of 32-bit numbers as bytes: ascending, unique, as runs where that is shorter."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mailpod.errors import Corrupt

Uids = NDArray[np.uint32]

_PLAIN: Final = b"\x00"
_RUNS: Final = b"\x01"
_ONE: Final = struct.Struct("<cI")
NONE: Final[Uids] = np.empty(0, dtype=np.uint32)
NONE.setflags(write=False)


def pack(uids: Uids) -> bytes:
    """Encode an ascending array."""
    count = len(uids)
    if count == 1:
        return _ONE.pack(_PLAIN, int(uids[0]))
    if count < 8:
        return _PLAIN + uids.astype("<u4").tobytes()
    breaks = np.flatnonzero(np.diff(uids) != 1) + 1
    runs = len(breaks) + 1
    if runs * 2 >= count:
        return _PLAIN + uids.astype("<u4").tobytes()
    starts = np.empty(runs, dtype=np.int64)
    starts[0] = 0
    starts[1:] = breaks
    pairs = np.empty((runs, 2), dtype="<u4")
    pairs[:, 0] = uids[starts]
    pairs[:, 1] = np.diff(np.append(starts, count))
    return _RUNS + pairs.tobytes()


def unpack(data: bytes, count_max: int = 1 << 26) -> Uids:
    """Decode. Raises `Corrupt` for anything that `pack` does not make."""
    body = memoryview(data)[1:]
    kind = data[:1]
    if kind == _PLAIN and len(body) % 4 == 0:
        uids = np.frombuffer(body, dtype="<u4").astype(np.uint32, copy=False)
    elif kind == _RUNS and len(body) % 8 == 0:
        pairs = np.frombuffer(body, dtype="<u4").reshape(-1, 2).astype(np.int64)
        total = int(pairs[:, 1].sum())
        if total > count_max or (pairs[:, 1] == 0).any():
            raise Corrupt("number set: runs")
        ends = np.cumsum(pairs[:, 1])
        wide = np.arange(total, dtype=np.int64) + np.repeat(pairs[:, 0] - (ends - pairs[:, 1]), pairs[:, 1])
        if total and int(wide[-1]) > 0xFFFFFFFF:
            raise Corrupt("number set: range")
        uids = wide.astype(np.uint32)
    else:
        raise Corrupt("number set: form")
    if len(uids) > 1 and not bool((uids[1:] > uids[:-1]).all()):
        raise Corrupt("number set: order")
    return uids

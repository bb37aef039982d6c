"""An account's state as bytes: a msgpack head, then one block a chunk: columns, delta, byte shuffle, zstd-1, CRC32C.

Delta and shuffle turn ascending numbers and small masks into long runs; measured at 9-12 bytes a message (PERFORMANCE.md, Snapshots).
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec
import numpy as np
import zstandard
from crc32c import crc32c
from numpy.typing import NDArray

from mailpod.errors import Corrupt
from mailpod.limits import store as limits
from mailpod.store import columns, uidset
from mailpod.store.columns import FIXED, Chunk
from mailpod.store.operations import BigBody
from mailpod.store.state import AccountState, Folder, TransitRecord, Vanished

_BLOCK: Final = struct.Struct("<IIII")  # rows, raw bytes, stored bytes, CRC32C of these and the data
_ROW_BYTES: Final = 4 + FIXED.itemsize + 16


class _FolderHead(msgspec.Struct, array_like=True):
    id: int
    name: str
    special_use: str
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    chunks: int
    vanished: tuple[tuple[int, bytes], ...]
    vanished_floor: int


class _Head(msgspec.Struct, array_like=True):
    incarnation: int
    closed: bool
    folders: tuple[_FolderHead, ...]
    keywords: tuple[str, ...]
    subscriptions: tuple[str, ...]
    next_folder: int
    next_email: int
    next_uidvalidity: int
    transit: tuple[tuple[int, int, tuple[tuple[int, int, int], ...]], ...]
    floor: int
    big_watermark: str
    bigs: tuple[BigBody, ...]
    reclaims: tuple[int, ...]
    executed: int
    restored: int
    markers: dict[str, str]
    tail_entries: int
    tail_bytes: int


_DECODER = msgspec.msgpack.Decoder(_Head)


def dump(state: AccountState) -> list[bytes]:
    """The state in parts to be joined. The same bytes for equal states."""
    compressor = zstandard.ZstdCompressor(level=1)
    ordered = [state.folders[folder_id] for folder_id in sorted(state.folders)]
    head = msgspec.msgpack.encode(
        _Head(
            state.incarnation,
            state.closed,
            tuple(_folder_head(folder) for folder in ordered),
            state.keywords,
            tuple(sorted(state.subscriptions)),
            state.next_folder,
            state.next_email,
            state.next_uidvalidity,
            tuple((log, record.watermark, tuple(sorted(record.applied))) for log, record in sorted(state.transit.items())),
            state.floor,
            state.big_watermark,
            tuple(state.bigs[email] for email in sorted(state.bigs)),
            state.reclaims,
            state.executed,
            state.restored,
            dict(sorted(state.markers.items())),
            state.tail_entries,
            state.tail_bytes,
        )
    )
    parts = _block(0, head, compressor)
    for folder in ordered:
        for chunk in folder.chunks:
            parts += _block(chunk.count, _encode(chunk), compressor)
    return parts


def _folder_head(folder: Folder) -> _FolderHead:
    return _FolderHead(
        folder.id,
        folder.name,
        folder.special_use,
        folder.uidvalidity,
        folder.uidnext,
        folder.highestmodseq,
        len(folder.chunks),
        tuple((record.modseq, uidset.pack(record.uids)) for record in folder.vanished),
        folder.vanished_floor,
    )


def _block(rows: int, raw: bytes, compressor: zstandard.ZstdCompressor) -> list[bytes]:
    data = compressor.compress(raw)
    crc = crc32c(data, crc32c(_BLOCK.pack(rows, len(raw), len(data), 0)))
    return [_BLOCK.pack(rows, len(raw), len(data), crc), data]


def _encode(chunk: Chunk) -> bytes:
    n = chunk.count
    parts = [_shuffled(chunk.uid[:n]), _shuffled(chunk.flags[:n], delta=False), _shuffled(chunk.modseq[:n])]
    fixed = chunk.fixed[:n]
    parts.extend(_shuffled(np.ascontiguousarray(fixed[name])) for name in FIXED.names or ())
    return b"".join(parts)


def _shuffled(column: NDArray[Any], *, delta: bool = True) -> bytes:
    if delta:
        out = column.copy()
        np.subtract(column[1:], column[:-1], out=out[1:])
        column = out
    width = column.dtype.itemsize
    return column.view(np.uint8).reshape(len(column), width).T.tobytes()


def load(data: memoryview, seq: int, commit: bytes) -> AccountState:
    """The reverse of `dump`. Raises `Corrupt` for anything else."""
    decompressor = zstandard.ZstdDecompressor()
    _, raw, offset = _open_block(data, 0, decompressor)
    try:
        head = _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Corrupt(f"snapshot {seq}: {error}") from None
    state = AccountState()
    state.seq = seq
    state.commit = commit
    for field in (
        "incarnation",
        "closed",
        "keywords",
        "next_folder",
        "next_email",
        "next_uidvalidity",
        "floor",
        "big_watermark",
        "reclaims",
        "executed",
        "restored",
        "markers",
        "tail_entries",
        "tail_bytes",
    ):
        setattr(state, field, getattr(head, field))
    state.subscriptions = frozenset(head.subscriptions)
    state.transit = {log: TransitRecord(mark, frozenset(applied)) for log, mark, applied in head.transit}
    state.bigs = {big.email: big for big in head.bigs}
    for one in head.folders:
        folder = Folder(one.id, one.name, one.special_use, one.uidvalidity, one.highestmodseq)
        folder.uidnext = one.uidnext
        folder.vanished = tuple(Vanished(modseq, uidset.unpack(uids)) for modseq, uids in one.vanished)
        folder.vanished_uids = sum(len(record.uids) for record in folder.vanished)
        folder.vanished_floor = one.vanished_floor
        chunks = []
        for _ in range(one.chunks):
            rows, raw, offset = _open_block(data, offset, decompressor)
            chunks.append(_decode(rows, raw, seq))
        folder.chunks = tuple(chunks)
        _check(folder, seq)
        state.folders[folder.id] = folder
        state.messages += folder.count
        state.bytes += folder.bytes
    if offset != len(data):
        raise Corrupt(f"snapshot {seq}: {len(data) - offset} bytes too many")
    return state


def _check(folder: Folder, seq: int) -> None:
    """Rows ascend by UID, below uidnext."""
    last = 0
    for chunk in folder.chunks:
        uids = chunk.uid[: chunk.count]
        if not chunk.count or int(uids[0]) <= last or not bool((uids[1:] > uids[:-1]).all()):
            raise Corrupt(f"snapshot {seq}: UIDs of folder {folder.id}")
        last = int(uids[-1])
        folder.count += chunk.count
    if last >= folder.uidnext:
        raise Corrupt(f"snapshot {seq}: UIDNEXT of folder {folder.id}")


def _open_block(data: memoryview, offset: int, decompressor: zstandard.ZstdDecompressor) -> tuple[int, bytes, int]:
    if len(data) - offset < _BLOCK.size:
        raise Corrupt("snapshot: short")
    rows, raw_bytes, stored, crc = _BLOCK.unpack_from(data, offset)
    start = offset + _BLOCK.size
    packed = data[start : start + stored]
    if len(packed) != stored or crc32c(packed, crc32c(_BLOCK.pack(rows, raw_bytes, stored, 0))) != crc:
        raise Corrupt("snapshot: checksum")
    if raw_bytes > limits.SNAPSHOT_BYTES_MAX:
        raise Corrupt("snapshot: length")
    try:
        raw = decompressor.decompress(packed, max_output_size=raw_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"snapshot: {error}") from None
    if len(raw) != raw_bytes:
        raise Corrupt("snapshot: length")
    return rows, raw, start + stored


def _decode(rows: int, raw: bytes, seq: int) -> Chunk:
    if not 0 < rows <= limits.CHUNK_ROWS or len(raw) != rows * _ROW_BYTES:
        raise Corrupt(f"snapshot {seq}: rows")
    view = np.frombuffer(raw, dtype=np.uint8)
    at = 0

    def column(dtype: Any, *, delta: bool = True) -> NDArray[Any]:
        nonlocal at
        width = np.dtype(dtype).itemsize
        plain = np.ascontiguousarray(view[at : at + rows * width].reshape(width, rows).T).view(dtype).reshape(rows)
        at += rows * width
        return np.cumsum(plain, dtype=dtype) if delta else plain

    uid = column("<u4")
    flags = column("<u8", delta=False)
    modseq = column("<u8")
    fixed = np.empty(rows, dtype=FIXED)
    for name in FIXED.names or ():
        fixed[name] = column(FIXED[name])
    return Chunk(uid, fixed, flags, modseq, rows)


def chunk_bytes(state: AccountState) -> int:
    """Memory of the state's columns."""
    return sum(chunk.bytes for folder in state.folders.values() for chunk in folder.chunks) + columns.FIXED.itemsize


def same(one: AccountState, other: AccountState) -> bool:
    """Whether two states say the same, however their rows are cut into chunks and whatever is counted for the pace of snapshots."""
    fields = [name for name in AccountState.__slots__ if name not in ("folders", "tail_entries", "tail_bytes")]
    if any(getattr(one, name) != getattr(other, name) for name in fields) or one.folders.keys() != other.folders.keys():
        return False
    return all(_same_folder(folder, other.folders[folder_id]) for folder_id, folder in one.folders.items())


def _same_folder(one: Folder, other: Folder) -> bool:
    for name in ("id", "name", "special_use", "uidvalidity", "uidnext", "highestmodseq", "count", "vanished_floor"):
        if getattr(one, name) != getattr(other, name):
            return False
    if len(one.vanished) != len(other.vanished) or any(
        a.modseq != b.modseq or not np.array_equal(a.uids, b.uids) for a, b in zip(one.vanished, other.vanished, strict=True)
    ):
        return False
    if not (
        np.array_equal(columns.uid_column(one.chunks), columns.uid_column(other.chunks))
        and np.array_equal(columns.flags_column(one.chunks), columns.flags_column(other.chunks))
        and np.array_equal(columns.modseq_column(one.chunks), columns.modseq_column(other.chunks))
    ):
        return False
    return all(np.array_equal(columns.column(one.chunks, name), columns.column(other.chunks, name)) for name in FIXED.names or ())

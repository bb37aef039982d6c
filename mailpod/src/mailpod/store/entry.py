"""The binary form of an entry.

```
header        fixed, HEADER_BYTES, little endian, CRC32C at its end
operations    msgpack, zstd when flagged, CRC32C in the header (over the operations and the table)
table         one u32 a frame: its stored length
frames        first all summaries, then all bodies, in message order; each on its own: u32 codec, stored, raw, CRC32C, then the bytes
```

A frame's CRC32C also covers the entry's number and the frame's own (2i: message i's summary, 2i+1: its body), so that a frame read in
the wrong place is noticed. An emptied entry
is header, operations and table; a stripped one (purged after an erase) is a header alone. Both carry the landing time that the entry had,
since overwriting changes Last-Modified.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import zstandard
from crc32c import crc32c

from mailpod.errors import NEWER_FORMAT, Corrupt, Refused
from mailpod.limits import store as limits

MAGIC: Final = b"PRML"
FORMAT_VERSION: Final = 1
EMPTIED: Final = 1
STRIPPED: Final = 2
PACKED: Final = 4  # the operations are compressed

_HEADER: Final = struct.Struct("<4sHHQ16s16sdQIIIIQ")
HEADER_BYTES: Final = _HEADER.size + 4
_CRC: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<IIII")
_FRAME_SEED: Final = struct.Struct("<QIIII")
FRAME_BYTES: Final = _FRAME.size
RAW: Final = 0
ZSTD: Final = 1
NO_ENTRY: Final = bytes(16)  # the "previous commit id" of entry 1

# For the event loop's thread alone; other threads make their own.
_COMPRESSOR: Final = zstandard.ZstdCompressor(level=1)
_DECOMPRESSOR: Final = zstandard.ZstdDecompressor()


class Header(NamedTuple):
    """An entry's header. Lengths are those of the whole entry, also when it has been emptied."""

    seq: int
    commit: bytes  # 16 random bytes
    previous: bytes  # the previous entry's
    landing: float  # seconds since 1970-01-01 UTC; 0 unless emptied or stripped
    erased_by: int  # seq of the erase that stripped the entry; else 0
    flags: int
    operations_stored: int  # bytes
    operations_raw: int  # bytes
    operations_crc: int
    frames: int
    frames_bytes: int

    @property
    def head_bytes(self) -> int:
        """Where the frames begin."""
        return HEADER_BYTES + self.operations_stored + 4 * self.frames


class Frame(NamedTuple):
    """A piece of content, compressed or not, ready to be put in any entry."""

    codec: int
    raw_bytes: int
    data: bytes
    data_crc: int


def make_frame(raw: bytes, compressor: zstandard.ZstdCompressor | None = None) -> Frame:
    """Compress `raw` when it pays. Give a compressor of your own outside the event loop's thread."""
    size = len(raw)
    if size >= limits.BODY_COMPRESS_BYTES_MIN:
        packed = (compressor or _COMPRESSOR).compress(raw)
        if len(packed) < size - (size >> 5):
            return Frame(ZSTD, size, packed, crc32c(packed))
    return Frame(RAW, size, raw, crc32c(raw))


def frame_header(frame: Frame, seq: int, index: int) -> bytes:
    """The bytes before a frame's data in entry `seq` at `index`."""
    stored = len(frame.data)
    crc = crc32c(_FRAME_SEED.pack(seq, index, frame.codec, stored, frame.raw_bytes), frame.data_crc)
    return _FRAME.pack(frame.codec, stored, frame.raw_bytes, crc)


def open_frame(
    stored: bytes | memoryview,
    seq: int,
    index: int,
    decompressor: zstandard.ZstdDecompressor | None = None,
    raw_max: int = limits.BODY_BYTES_MAX,
) -> bytes:
    """A frame's content, verified. Raises `Corrupt`."""
    frame = check_frame(stored, seq, index)
    if frame.codec == RAW:
        return frame.data
    if frame.raw_bytes > raw_max:
        raise Corrupt(f"entry {seq} frame {index}: {frame.raw_bytes} bytes")
    try:
        raw = (decompressor or _DECOMPRESSOR).decompress(frame.data, max_output_size=frame.raw_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"entry {seq} frame {index}: {error}") from None
    if len(raw) != frame.raw_bytes:
        raise Corrupt(f"entry {seq} frame {index}: length")
    return raw


def check_frame(stored: bytes | memoryview, seq: int, index: int) -> Frame:
    """A frame as it lies, verified, not decompressed. Raises `Corrupt`."""
    if len(stored) < FRAME_BYTES:
        raise Corrupt(f"entry {seq} frame {index}: short")
    codec, length, raw_bytes, crc = _FRAME.unpack_from(stored)
    data = bytes(stored[FRAME_BYTES:])
    data_crc = crc32c(data)
    if length != len(data) or crc != crc32c(_FRAME_SEED.pack(seq, index, codec, length, raw_bytes), data_crc):
        raise Corrupt(f"entry {seq} frame {index}: checksum")
    if codec not in (RAW, ZSTD) or (codec == RAW and raw_bytes != length):
        raise Corrupt(f"entry {seq} frame {index}: codec")
    return Frame(codec, raw_bytes, data, data_crc)


EMPTY_FRAME: Final = make_frame(b"")


class Encoded(NamedTuple):
    """An entry to PUT."""

    parts: list[bytes]
    size: int  # bytes
    head_bytes: int  # where the frames begin
    operations_bytes: int  # as stored


def encode(
    seq: int, commit: bytes, previous: bytes, operations: bytes, summaries: Sequence[Frame] = (), bodies: Sequence[Frame] = ()
) -> Encoded:
    """Put an entry together. There is a summary and a body for each message; one that has none has an empty frame."""
    flags = 0
    stored = operations
    if len(operations) >= limits.OPERATIONS_COMPRESS_BYTES_MIN:
        packed = _COMPRESSOR.compress(operations)
        if len(packed) < len(operations):
            stored, flags = packed, PACKED
    table = b""
    frames_bytes = 0
    parts = [b"", stored, b""]
    if bodies:
        lengths = [FRAME_BYTES + len(frame.data) for frames in (summaries, bodies) for frame in frames]
        table = struct.pack(f"<{len(lengths)}I", *lengths)
        frames_bytes = sum(lengths)
        parts[2] = table
        for kind, frames in enumerate((summaries, bodies)):
            for index, frame in enumerate(frames):
                parts.append(frame_header(frame, seq, 2 * index + kind))
                parts.append(frame.data)
    header = Header(
        seq,
        commit,
        previous,
        0.0,
        0,
        flags,
        len(stored),
        len(operations),
        crc32c(table, crc32c(stored)),
        2 * len(bodies),
        frames_bytes,
    )
    parts[0] = _pack(header)
    head = header.head_bytes
    return Encoded(parts, head + frames_bytes, head, len(stored))


def _pack(header: Header) -> bytes:
    packed = _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        header.flags,
        header.seq,
        header.commit,
        header.previous,
        header.landing,
        header.erased_by,
        header.operations_stored,
        header.operations_raw,
        header.operations_crc,
        header.frames,
        header.frames_bytes,
    )
    return packed + _CRC.pack(crc32c(packed))


def read_header(data: bytes, seq: int) -> Header:
    """Decode and check the header of entry `seq`. Raises `Corrupt`, or `Refused` with NEWER_FORMAT."""
    if len(data) < HEADER_BYTES:
        raise Corrupt(f"entry {seq}: {len(data)} bytes are no header")
    (magic, version, flags, found, commit, previous, landing, erased_by, stored, raw, operations_crc, frames, frames_bytes) = (
        _HEADER.unpack_from(data)
    )
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if magic != MAGIC or crc != crc32c(data[: _HEADER.size]):
        raise Corrupt(f"entry {seq}: header checksum")
    if version > FORMAT_VERSION:
        raise Refused(NEWER_FORMAT, f"entry {seq} has format {version}")
    if found != seq:
        raise Corrupt(f"entry {seq}: its header says {found}")
    if raw > limits.OPERATIONS_BYTES_MAX or frames > 2 * limits.ENTRY_MESSAGES_MAX:
        raise Corrupt(f"entry {seq}: impossible lengths")
    return Header(found, commit, previous, landing, erased_by, flags, stored, raw, operations_crc, frames, frames_bytes)


def read_operations(header: Header, data: bytes) -> bytes:
    """The operations' msgpack of an entry whose head is in `data`. Raises `Corrupt`."""
    end = HEADER_BYTES + header.operations_stored
    head = header.head_bytes
    if len(data) < head or crc32c(data[HEADER_BYTES:head]) != header.operations_crc:
        raise Corrupt(f"entry {header.seq}: operations checksum")
    stored = data[HEADER_BYTES:end]
    if not header.flags & PACKED:
        return stored
    try:
        raw = _DECOMPRESSOR.decompress(stored, max_output_size=header.operations_raw, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"entry {header.seq}: operations: {error}") from None
    if len(raw) != header.operations_raw:
        raise Corrupt(f"entry {header.seq}: operations length")
    return raw


def read_table(header: Header, data: bytes) -> tuple[int, ...]:
    """The frames' stored lengths, of an entry whose head is in `data`; its checksum is the operations'."""
    lengths = struct.unpack_from(f"<{header.frames}I", data, HEADER_BYTES + header.operations_stored)
    if sum(lengths) != header.frames_bytes:
        raise Corrupt(f"entry {header.seq}: frame table")
    return lengths


def emptied(header: Header, data: bytes, landing: float) -> bytes:
    """The entry without its frames: what stays for ever. `data` holds at least its head; `landing` is when it landed."""
    return _pack(header._replace(flags=header.flags | EMPTIED, landing=landing)) + data[HEADER_BYTES : header.head_bytes]


def stripped(header: Header, landing: float, erased_by: int) -> bytes:
    """The entry's header alone: what a purge leaves. Readers go on at the erase `erased_by`."""
    return _pack(
        header._replace(
            flags=(header.flags | EMPTIED | STRIPPED) & ~PACKED,
            landing=landing,
            erased_by=erased_by,
            operations_stored=0,
            operations_raw=0,
            operations_crc=crc32c(b""),
            frames=0,
            frames_bytes=0,
        )
    )

"""What can be done about a message before anyone knows where it will be: summary, compression, checksums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import zstandard

from mailpod.errors import Refused
from mailpod.limits import store as limits
from mailpod.message.summary import Summary
from mailpod.store.entry import EMPTY_FRAME, Frame, frame_header, make_frame
from mailpod.store.reasons import LIMIT

Summarize = Callable[[bytes], Summary]
_ENCODER = msgspec.msgpack.Encoder()


class Prepared(NamedTuple):
    """A message ready for an entry."""

    raw: bytes
    summary: bytes  # msgpack of the Summary
    summary_frame: Frame
    body_frame: Frame  # empty when the body has an object of its own
    pieces: tuple[bytes, ...] = ()  # of such a body, as stored


def joined(raw: bytes | Sequence[bytes]) -> bytes:
    """One buffer. Raises `Refused` (limit) for more than a body may have."""
    data = raw if isinstance(raw, bytes) else b"".join(raw)
    if len(data) > limits.BODY_BYTES_MAX:
        raise Refused(LIMIT, f"a message of {len(data)} bytes")
    return data


def prepare(raw: bytes, summarize: Summarize) -> Prepared:
    """For the event loop's thread."""
    summary = _ENCODER.encode(summarize(raw))
    return Prepared(raw, summary, make_frame(summary), make_frame(raw))


def prepare_elsewhere(raw: bytes, summarize: Summarize) -> Prepared:
    """For another thread: with compressors of its own; also cuts a big body into pieces."""
    compressor = zstandard.ZstdCompressor(level=1)
    summary = msgspec.msgpack.encode(summarize(raw))
    summary_frame = make_frame(summary, compressor)
    if len(raw) < limits.BIG_BODY_BYTES_MIN:
        return Prepared(raw, summary, summary_frame, make_frame(raw, compressor))
    pieces = cut(raw, compressor)
    return Prepared(raw, summary, summary_frame, EMPTY_FRAME, pieces)


def cut(raw: bytes, compressor: zstandard.ZstdCompressor) -> tuple[bytes, ...]:
    """A big body as pieces, each a frame of its own: piece n is sealed as frame n of entry 0."""
    pieces = []
    for number, start in enumerate(range(0, len(raw), limits.BIG_PIECE_BYTES)):
        frame = make_frame(raw[start : start + limits.BIG_PIECE_BYTES], compressor)
        pieces.append(frame_header(frame, 0, number) + frame.data)
    return tuple(pieces)

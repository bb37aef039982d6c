"""What entries of an account say happened: operations with all their outcomes. Replay does not decide anything anew.

Wire form: msgpack arrays whose first item is the operation's number. Fields may be added at the end with a default; a new operation or a
changed meaning is a new format version of the entry.
"""

from __future__ import annotations

import msgspec

from mailpod.errors import Corrupt


class _Op(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all."""


class FolderSpec(_Op, frozen=True):
    """A folder that is made."""

    id: int
    name: str
    special_use: str
    uidvalidity: int


class Created(_Op, frozen=True, tag=1):
    """The account begins, for the first time or again; its incarnation is this entry's seq."""

    folders: tuple[FolderSpec, ...]


class Row(_Op, frozen=True):
    """One appended message."""

    flags: int
    date: int
    size: int
    off: int  # offset of the body's frame from where the entry's bodies begin; BIG
    length: int
    index: int  # the message's number in the entry


class BigBody(_Op, frozen=True):
    """A body that has an object of its own."""

    email: int
    id: str
    size: int
    pieces: tuple[int, ...]  # stored bytes of each piece


class Appended(_Op, frozen=True, tag=2):
    """Messages arrive in a folder, with ascending UIDs and EMAILIDs from these first ones on."""

    folder: int
    uid: int
    email: int
    saved: int
    rows: tuple[Row, ...]
    bigs: tuple[BigBody, ...] = ()


class FlagsChanged(_Op, frozen=True, tag=3):
    """The messages' flags become `(flags & ~clear) | add`."""

    folder: int
    uids: bytes
    clear: int
    add: int


class CopiedOver(_Op, frozen=True, tag=4):
    """Messages are copied, or moved; the first gets UID `uid` in the target, the following ones the following."""

    folder: int
    uids: bytes
    target: int
    uid: int
    saved: int
    moved: bool


class Removed(_Op, frozen=True, tag=5):
    """Messages are expunged."""

    folder: int
    uids: bytes


class FolderCreated(_Op, frozen=True, tag=6):
    """A folder is made."""

    folder: FolderSpec


class FolderDeleted(_Op, frozen=True, tag=7):
    """A folder goes, with its messages."""

    folder: int


class FolderRenamed(_Op, frozen=True, tag=8):
    """A folder gets another name; those below it have operations of their own."""

    folder: int
    name: str


class Subscribed(_Op, frozen=True, tag=9):
    """A name enters or leaves the list of subscriptions."""

    name: str
    subscribed: bool


class KeywordAdded(_Op, frozen=True, tag=10):
    """The account's next free flag bit gets a name."""

    bit: int
    name: str


class VanishedForgotten(_Op, frozen=True, tag=11):
    """Expunges of a folder up to `modseq` are no longer remembered."""

    folder: int
    modseq: int


class Applied(_Op, frozen=True, tag=12):
    """This entry delivers what transit log `log` holds as (seq, index) for its recipient number `recipient`."""

    log: int
    seq: int
    index: int
    recipient: int


class WatermarkMoved(_Op, frozen=True, tag=13):
    """All of transit log `log` at or below `seq` is done: applied records up to there can go, nothing there is applied again."""

    log: int
    seq: int


class Reclaimed(_Op, frozen=True, tag=14):
    """Lists what dies: the bodies of `entries`, and `bigs`. No state from `floor` on refers to them."""

    floor: int
    watermark: str  # a big id at or below it may not be referred to for the first time any more
    entries: bytes  # a set of 64-bit numbers, see `numbers`
    bigs: tuple[str, ...]
    executed: int  # lists of reclaims at or below this seq have been carried out


class Moved(_Op, frozen=True):
    """A body that `Relocated` brings along."""

    email: int
    off: int
    length: int
    index: int


class Relocated(_Op, frozen=True, tag=15):
    """Living bodies of mostly dead entries are in this entry from now on."""

    bodies: tuple[Moved, ...]


class WatermarkState(_Op, frozen=True):
    """What is remembered of one transit log."""

    log: int
    seq: int
    applied: tuple[tuple[int, int, int], ...]


class Erased(_Op, frozen=True, tag=16):
    """The account is closed. Carries all that outlives it, so that every earlier entry may be stripped. Alone in its entry."""

    incarnation: int
    next_folder: int
    next_email: int
    next_uidvalidity: int
    big_watermark: str
    watermarks: tuple[WatermarkState, ...]


class Inserted(_Op, frozen=True, tag=17):
    """Messages of an earlier state come back into a folder, as new UIDs, with the bodies they had."""

    folder: int
    uid: int
    saved: int
    fixed: bytes  # rows of `columns.FIXED`
    flags: bytes  # u64 each
    bigs: tuple[BigBody, ...] = ()


class Restored(_Op, frozen=True, tag=18):
    """Marks that this entry restores the state at `seq`."""

    seq: int


class Marked(_Op, frozen=True, tag=19):
    """A resumable import's place; an empty value removes it."""

    key: str
    value: str


Operation = (
    Created
    | Appended
    | FlagsChanged
    | CopiedOver
    | Removed
    | FolderCreated
    | FolderDeleted
    | FolderRenamed
    | Subscribed
    | KeywordAdded
    | VanishedForgotten
    | Applied
    | WatermarkMoved
    | Reclaimed
    | Relocated
    | Erased
    | Inserted
    | Restored
    | Marked
)

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[Operation, ...])


def encode(operations: list[Operation]) -> bytes:
    """Operations as they lie in an entry."""
    return _ENCODER.encode(operations)


def decode(data: bytes) -> tuple[Operation, ...]:
    """Raises `Corrupt` for what is no list of operations."""
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Corrupt(f"operations: {error}") from None

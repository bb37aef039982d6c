"""What the bucket's bytes say, read by a second, plain implementation that shares no code with the store.

It decodes entries as they landed (their first bytes, kept by `Archive`), and replays accounts message by message in ordinary dictionaries.
Slow and obvious, so that a mistake in the store's columns, caches and short cuts shows as a difference.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import zstandard
from crc32c import crc32c

from tests.sim.pictures import FolderPicture, MessagePicture, Picture, flag_names

HEADER: Final = struct.Struct("<4sHHQ16s16sdQIIIIQI")
FRAME: Final = struct.Struct("<IIII")
FIXED: Final = struct.Struct("<IqIIQIIH")
EMPTIED, STRIPPED, PACKED = 1, 2, 4
BIG: Final = 0xFFFFFFFF


class Undecodable(Exception):
    """Bytes that are no entry."""


class Entry(NamedTuple):
    """A decoded entry."""

    seq: int
    commit: bytes
    previous: bytes
    landing: float  # as an emptied entry records it; 0 otherwise
    flags: int
    operations: list[list[Any]]  # [number, field, …]
    head: bytes  # operations and table as they lie
    lengths: tuple[int, ...]
    frames: bytes


def decode_entry(data: bytes) -> Entry:
    """Raises `Undecodable`."""
    if len(data) < HEADER.size:
        raise Undecodable("short")
    (magic, version, flags, seq, commit, previous, landing, _erased_by, stored, raw, head_crc, frames, _bytes, crc) = HEADER.unpack_from(
        data
    )
    if magic != b"PRML" or version != 1 or crc != crc32c(data[: HEADER.size - 4]):
        raise Undecodable("header")
    start, end = HEADER.size, HEADER.size + stored + 4 * frames
    head = data[start:end]
    if crc32c(head) != head_crc:
        raise Undecodable("operations checksum")
    operations = head[:stored]
    if flags & PACKED:
        operations = zstandard.ZstdDecompressor().decompress(operations, max_output_size=raw)
    decoded = msgspec.msgpack.decode(operations) if operations else []
    lengths = struct.unpack_from(f"<{frames}I", data, start + stored)
    return Entry(seq, commit, previous, landing, flags, decoded, head, lengths, data[end:])


def decode_frame(stored: bytes, seq: int, number: int) -> bytes:
    """A frame's content. Raises `Undecodable`."""
    if len(stored) < FRAME.size:
        raise Undecodable("frame short")
    codec, length, raw, crc = FRAME.unpack_from(stored)
    data = stored[FRAME.size :]
    if len(data) != length or crc != crc32c(struct.pack("<QIIII", seq, number, codec, length, raw), crc32c(data)):
        raise Undecodable("frame checksum")
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=raw) if codec == 1 else data


def body_of(entry: Entry, index: int) -> bytes:
    """Message `index`'s body in an entry. Raises `Undecodable`."""
    frame = len(entry.lengths) // 2 + index
    if frame >= len(entry.lengths):
        raise Undecodable(f"no frame {frame}")
    start = sum(entry.lengths[:frame])
    return decode_frame(entry.frames[start : start + entry.lengths[frame]], entry.seq, 2 * index + 1)


def uid_list(data: bytes) -> list[int]:
    """A packed set of 32-bit numbers."""
    values = struct.unpack(f"<{(len(data) - 1) // 4}I", data[1:])
    if data[:1] == b"\x00":
        return list(values)
    return [uid for start, count in zip(values[::2], values[1::2], strict=True) for uid in range(start, start + count)]


def number_list(data: bytes) -> list[int]:
    """A packed set of 64-bit numbers."""
    out: list[int] = []
    for step in struct.unpack(f"<{len(data) // 8}Q", data):
        out.append(step + (out[-1] if out else 0))
    return out


@dataclass(slots=True)
class Message:
    """One message of the plain replay."""

    modseq: int
    flags: int
    date: int
    saved: int
    size: int
    email: int


@dataclass(slots=True)
class Folder:
    """One folder of the plain replay."""

    id: int
    name: str
    special_use: str
    uidvalidity: int
    highestmodseq: int
    uidnext: int = 1
    messages: dict[int, Message] = field(default_factory=dict)


class Contradiction(Exception):
    """An entry that cannot follow the ones before: the text begins with the invariant's number."""


class Replay:
    """An account, entry by entry."""

    def __init__(self) -> None:
        self.seq = 0
        self.closed = True
        self.incarnation = 0
        self.folders: dict[int, Folder] = {}
        self.keywords: list[str] = []
        self.subscriptions: set[str] = set()
        self.floor = 0
        self.big_watermark = ""
        self.places: dict[int, tuple[str, int, int, str]] = {}  # EMAILID → ("entry", seq, index, "") or ("big", 0, 0, id)
        self.applied: set[tuple[int, int, int, int]] = set()
        self.watermarks: dict[int, int] = {}
        self.validities: dict[str, int] = {}  # highest UIDVALIDITY that a name ever had
        self.ever_folders: set[int] = set()
        self.restores = 0

    def picture(self) -> Picture:
        """As `pictures.picture` makes one of a view."""
        keywords = tuple(self.keywords)
        folders = []
        count = total = 0
        for folder in sorted(self.folders.values(), key=lambda one: one.id):
            messages = []
            for uid, m in sorted(folder.messages.items()):
                messages.append(MessagePicture(uid, m.modseq, flag_names(m.flags, keywords), m.date, m.saved, m.size, m.email))
                count += 1
                total += m.size
            folders.append(
                FolderPicture(
                    folder.id, folder.name, folder.uidvalidity, folder.uidnext, folder.highestmodseq, folder.special_use, tuple(messages)
                )
            )
        return Picture(self.seq, tuple(folders), tuple(sorted(self.subscriptions)), total, count)

    def emails(self) -> set[int]:
        """EMAILIDs of all messages that are there."""
        return {message.email for folder in self.folders.values() for message in folder.messages.values()}

    def apply(self, entry: Entry) -> None:
        """The next entry. Raises `Contradiction`."""
        if entry.seq != self.seq + 1:
            raise Contradiction(f"1: entry {entry.seq} follows {self.seq}")
        self.seq = entry.seq
        for operation in entry.operations:
            getattr(self, _METHODS[operation[0]])(*operation[1:])

    # What operations share.

    def _touch(self, folder_id: int) -> Folder:
        folder = self.folders.get(folder_id)
        if folder is None:
            raise Contradiction(f"1: entry {self.seq} changes folder {folder_id}, which is not there")
        folder.highestmodseq = self.seq
        return folder

    def _make(self, spec: list[Any]) -> None:
        folder_id, name, special_use, uidvalidity = spec
        if uidvalidity <= self.validities.get(name, 0):
            raise Contradiction(f"6: entry {self.seq} gives folder {name!r} UIDVALIDITY {uidvalidity} again")
        if any(folder.name == name for folder in self.folders.values()):
            raise Contradiction(f"1: entry {self.seq} makes a second folder {name!r}")
        self.validities[name] = uidvalidity
        self.ever_folders.add(folder_id)
        self.folders[folder_id] = Folder(folder_id, name, special_use, uidvalidity, self.seq)

    def _add(self, folder: Folder, uid: int, message: Message) -> None:
        if uid < folder.uidnext:
            raise Contradiction(f"5: entry {self.seq} gives UID {uid} in folder {folder.id} again")
        folder.messages[uid] = message
        folder.uidnext = uid + 1

    def _take(self, folder: Folder, uid: int) -> Message:
        message = folder.messages.pop(uid, None)
        if message is None:
            raise Contradiction(f"1: entry {self.seq} expunges UID {uid} of folder {folder.id}, which is not there")
        return message

    def _bigs(self, bigs: list[list[Any]]) -> None:
        for big in bigs:
            email, name = big[0], big[1]
            known = any(place[3] == name for place in self.places.values())
            if not known and name <= self.big_watermark:
                raise Contradiction(f"9: entry {self.seq} refers to big body {name} below the watermark {self.big_watermark}")
            self.places[email] = ("big", 0, 0, name)

    # Operations.

    def created(self, folders: list[list[Any]]) -> None:
        if not self.closed:
            raise Contradiction(f"1: entry {self.seq} makes an account that is there")
        self.closed = False
        self.incarnation = self.seq
        for spec in folders:
            self._make(spec)

    def appended(self, folder_id: int, uid: int, email: int, saved: int, rows: list[list[int]], bigs: list[list[Any]] = []) -> None:  # noqa: B006 - read only
        folder = self._touch(folder_id)
        for number, (flags, date, size, off, _length, index) in enumerate(rows):
            if email + number in self.places:
                raise Contradiction(f"5: entry {self.seq} gives EMAILID {email + number} again")
            if off != BIG:
                self.places[email + number] = ("entry", self.seq, index, "")
            self._add(folder, uid + number, Message(self.seq, flags, date, saved, size, email + number))
        self._bigs(bigs)

    def flags_changed(self, folder_id: int, uids: bytes, clear: int, add: int) -> None:
        folder = self._touch(folder_id)
        for uid in uid_list(uids):
            message = folder.messages.get(uid)
            if message is None:
                raise Contradiction(f"1: entry {self.seq} changes flags of UID {uid} of folder {folder_id}, which is not there")
            message.flags = message.flags & ~clear | add
            message.modseq = self.seq

    def copied(self, folder_id: int, uids: bytes, target_id: int, uid: int, saved: int, moved: bool) -> None:
        source = self._touch(folder_id) if moved else self.folders.get(folder_id)
        if source is None:
            raise Contradiction(f"1: entry {self.seq} copies from folder {folder_id}, which is not there")
        target = self._touch(target_id)
        for number, old in enumerate(uid_list(uids)):
            m = self._take(source, old) if moved else source.messages.get(old)
            if m is None:
                raise Contradiction(f"1: entry {self.seq} copies UID {old} of folder {folder_id}, which is not there")
            self._add(target, uid + number, Message(self.seq, m.flags, m.date, saved, m.size, m.email))

    def removed(self, folder_id: int, uids: bytes) -> None:
        folder = self._touch(folder_id)
        for uid in uid_list(uids):
            self._take(folder, uid)

    def folder_created(self, spec: list[Any]) -> None:
        self._make(spec)

    def folder_deleted(self, folder_id: int) -> None:
        if self.folders.pop(folder_id, None) is None:
            raise Contradiction(f"1: entry {self.seq} deletes folder {folder_id}, which is not there")

    def folder_renamed(self, folder_id: int, name: str) -> None:
        folder = self._touch(folder_id)
        folder.name = name
        self.validities[name] = max(self.validities.get(name, 0), folder.uidvalidity)

    def subscribed(self, name: str, on: bool) -> None:
        (self.subscriptions.add if on else self.subscriptions.discard)(name)

    def keyword_added(self, bit: int, name: str) -> None:
        if bit != 5 + len(self.keywords):
            raise Contradiction(f"1: entry {self.seq} names flag bit {bit}")
        self.keywords.append(name)

    def nothing(self, *_fields: object) -> None:
        """Of no consequence to what a client sees."""

    def applied_transit(self, log: int, seq: int, index: int, recipient: int) -> None:
        key = (log, seq, index, recipient)
        if key in self.applied:
            raise Contradiction(f"13: entry {self.seq} applies {key} a second time")
        if seq <= self.watermarks.get(log, 0):
            raise Contradiction(f"13: entry {self.seq} applies {key} below the watermark {self.watermarks[log]}")
        self.applied.add(key)

    def watermark_moved(self, log: int, seq: int) -> None:
        if seq <= self.watermarks.get(log, 0):
            raise Contradiction(f"13: entry {self.seq} moves the watermark of transit {log} back to {seq}")
        self.watermarks[log] = seq

    def reclaimed(self, floor: int, watermark: str, _entries: bytes, _bigs: list[str], _executed: int) -> None:
        if floor < self.floor or watermark < self.big_watermark or floor >= self.seq:
            raise Contradiction(f"10: entry {self.seq} reclaims with floor {floor} after {self.floor}")
        self.floor = floor
        self.big_watermark = watermark

    def relocated(self, bodies: list[list[int]]) -> None:
        for email, _off, _length, index in bodies:
            if email not in self.places:
                raise Contradiction(f"9: entry {self.seq} relocates EMAILID {email}, which never was")
            self.places[email] = ("entry", self.seq, index, "")

    def erased(self, incarnation: int, _folder: int, email: int, validity: int, big: str, _watermarks: list[Any], *_more: Any) -> None:
        if incarnation != self.incarnation or email <= max(self.places, default=0):
            raise Contradiction(f"16: entry {self.seq} erases incarnation {incarnation}, next EMAILID {email}")
        if validity <= max((folder.uidvalidity for folder in self.folders.values()), default=0):
            raise Contradiction(f"6: entry {self.seq} carries the UIDVALIDITY floor {validity}, which is taken")
        self.closed = True
        self.folders = {}
        self.keywords = []
        self.subscriptions = set()
        self.floor = self.seq
        self.big_watermark = max(big, self.big_watermark)

    def inserted(self, folder_id: int, uid: int, saved: int, fixed: bytes, flags: bytes, bigs: list[list[Any]] = []) -> None:  # noqa: B006 - read only
        folder = self._touch(folder_id)
        masks = struct.unpack(f"<{len(flags) // 8}Q", flags)
        for number, (email, date, _saved, size, seq, off, _length, index) in enumerate(FIXED.iter_unpack(fixed)):
            if off != BIG:
                self.places[email] = ("entry", seq, index, "")
            self._add(folder, uid + number, Message(self.seq, masks[number], date, saved, size, email))
        self._bigs(bigs)

    def restored(self, seq: int) -> None:
        if seq < self.floor:
            raise Contradiction(f"9: entry {self.seq} restores {seq}, below the floor {self.floor}")
        self.restores += 1


_METHODS: Final = {
    1: "created",
    2: "appended",
    3: "flags_changed",
    4: "copied",
    5: "removed",
    6: "folder_created",
    7: "folder_deleted",
    8: "folder_renamed",
    9: "subscribed",
    10: "keyword_added",
    11: "nothing",
    12: "applied_transit",
    13: "watermark_moved",
    14: "reclaimed",
    15: "relocated",
    16: "erased",
    17: "inserted",
    18: "restored",
    19: "nothing",
}

"""The state of an account at one entry: immutable values, shared where nothing changed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mailpod.store import columns
from mailpod.store.columns import Chunks
from mailpod.store.entry import NO_ENTRY
from mailpod.store.operations import BigBody
from mailpod.store.uidset import Uids


class Vanished(NamedTuple):
    """One expunge: the MODSEQ and the UIDs."""

    modseq: int
    uids: Uids


class Folder:
    """One folder. Copied when changed; `cache` holds what was computed from this very value."""

    __slots__ = (
        "cache",
        "chunks",
        "count",
        "highestmodseq",
        "id",
        "name",
        "special_use",
        "uidnext",
        "uidvalidity",
        "vanished",
        "vanished_floor",
        "vanished_uids",
    )

    def __init__(self, folder_id: int, name: str, special_use: str, uidvalidity: int, modseq: int) -> None:
        self.id = folder_id
        self.name = name
        self.special_use = special_use
        self.uidvalidity = uidvalidity
        self.uidnext = 1
        self.highestmodseq = modseq
        self.count = 0
        self.chunks: Chunks = ()
        self.vanished: tuple[Vanished, ...] = ()  # ascending by modseq
        self.vanished_floor = 0  # expunges at or below this MODSEQ are not remembered
        self.vanished_uids = 0
        self.cache: dict[str, object] = {}

    def copy(self) -> Folder:
        """A value to change."""
        made = Folder.__new__(Folder)
        made.id = self.id
        made.name = self.name
        made.special_use = self.special_use
        made.uidvalidity = self.uidvalidity
        made.uidnext = self.uidnext
        made.highestmodseq = self.highestmodseq
        made.count = self.count
        made.chunks = self.chunks
        made.vanished = self.vanished
        made.vanished_floor = self.vanished_floor
        made.vanished_uids = self.vanished_uids
        made.cache = {}
        return made

    @property
    def bytes(self) -> int:
        """Sum of the messages' sizes."""
        return sum(int(chunk.fixed["size"][: chunk.count].sum(dtype="i8")) for chunk in self.chunks)

    def locations(self) -> columns.Fixed:
        """FIXED rows of all messages, one array."""
        if not self.chunks:
            return np.empty(0, dtype=columns.FIXED)
        return np.concatenate([chunk.fixed[: chunk.count] for chunk in self.chunks])


class TransitRecord(NamedTuple):
    """What an account remembers of one transit log: (seq, index, recipient) above the watermark that it applied."""

    watermark: int
    applied: frozenset[tuple[int, int, int]]


NOTHING_APPLIED = TransitRecord(0, frozenset())


class AccountState:
    """An account at entry `seq`."""

    __slots__ = (
        "big_watermark",
        "bigs",
        "bytes",
        "closed",
        "commit",
        "executed",
        "floor",
        "folders",
        "incarnation",
        "keywords",
        "markers",
        "messages",
        "next_email",
        "next_folder",
        "next_uidvalidity",
        "reclaims",
        "restored",
        "seq",
        "subscriptions",
        "tail_bytes",
        "tail_entries",
        "transit",
    )

    def __init__(self) -> None:
        self.seq = 0
        self.commit = NO_ENTRY
        self.incarnation = 0  # 0: there has been none
        self.closed = True
        self.folders: dict[int, Folder] = {}
        self.keywords: tuple[str, ...] = ()
        self.subscriptions: frozenset[str] = frozenset()
        self.bytes = 0  # of all messages, copies counted
        self.messages = 0
        self.next_folder = 1
        self.next_email = 1
        self.next_uidvalidity = 1
        self.transit: dict[int, TransitRecord] = {}
        self.floor = 0  # the highest reclaim's: earlier states' bodies may be gone
        self.big_watermark = ""
        self.bigs: dict[int, BigBody] = {}  # by EMAILID
        self.reclaims: tuple[int, ...] = ()  # seqs of reclaims whose lists may not have been carried out
        self.executed = 0
        self.restored = 0  # seq of the newest restore
        self.markers: dict[str, str] = {}
        self.tail_entries = 0  # since the last seq at which a snapshot was due; how fast to snapshot, not what is true
        self.tail_bytes = 0

    def copy(self) -> AccountState:
        """A value to change; the dictionaries are shared until somebody replaces them, `folders` is copied."""
        made = AccountState.__new__(AccountState)
        for name in AccountState.__slots__:
            setattr(made, name, getattr(self, name))
        made.folders = dict(self.folders)
        return made

    def folder_named(self, name: str) -> Folder | None:
        """By exact name."""
        for folder in self.folders.values():
            if folder.name == name:
                return folder
        return None

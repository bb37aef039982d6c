"""The selected folder as the client knows it: an immutable view, the client's own numbering, and the difference to a newer view."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mailpod.store.facade import FolderView
from mailpod.store.types import Rows, Uids

Positions = NDArray[np.int64]  # sequence number - 1, by the client's numbering, ascending

NO_POSITIONS: Positions = np.empty(0, np.int64)
NO_UIDS: Uids = np.empty(0, np.uint32)


class Delta(NamedTuple):
    """What a client has to be told to get from what it knows to a newer view. Empty arrays: nothing of that kind."""

    expunged: Positions  # positions in the numbering before; to be told as EXPUNGE
    vanished: Uids  # the UIDs at these positions; to be told as VANISHED instead, after ENABLE QRESYNC
    exists: int | None  # the new number of messages, where messages came
    rows: Rows  # of the newer view: messages known before whose flags or MODSEQ changed
    seqs: NDArray[np.int64]  # their sequence numbers, in the numbering after the expunges

    def __bool__(self) -> bool:
        return bool(len(self.expunged)) or self.exists is not None or bool(len(self.rows))


NO_CHANGE = Delta(NO_POSITIONS, NO_UIDS, None, NO_POSITIONS, NO_POSITIONS)


class Selected:
    """One session's picture of its folder.

    `view` is the newest view whose news the client was told, except for expunged messages that it could not be told yet: these
    "ghosts" keep their number in `uids` (RFC 9051 §7.5.1: no EXPUNGE during FETCH, STORE and SEARCH) and are in no view any more.
    While there are none, `uids` is the view's own array, shared by all sessions on it, and a position is a row.
    """

    __slots__ = ("aligned", "read_only", "uids", "view")

    def __init__(self, view: FolderView, *, read_only: bool) -> None:
        self.view = view
        self.read_only = read_only
        self.uids: Uids = view.uids()
        self.aligned = True  # uids are the view's

    @property
    def folder_id(self) -> int:
        """The folder's id in its account."""
        return self.view.id

    @property
    def count(self) -> int:
        """Messages as the client counts them."""
        return len(self.uids)

    def uids_at(self, positions: Positions) -> Uids:
        """The UIDs at `positions`."""
        return self.uids[positions]

    def positions_of(self, uids: Uids) -> Positions:
        """Positions of those of `uids` (ascending) that the client knows."""
        return positions_in(self.uids, uids)

    def rows_at(self, positions: Positions) -> tuple[Rows, Positions]:
        """(rows of `view`, positions) of those `positions` that are no ghosts; both of the same length."""
        if self.aligned:
            return positions, positions
        wanted = self.uids[positions]
        rows = np.searchsorted(self.view.uids(), wanted)
        view_uids = self.view.uids()
        there = rows < len(view_uids)
        there[there] = view_uids[rows[there]] == wanted[there]
        return rows[there].astype(np.int64), positions[there]

    def seqs_of_rows(self, rows: Rows) -> NDArray[np.int64]:
        """The client's sequence numbers of `rows` of `view`."""
        if self.aligned:
            return rows + 1
        return np.searchsorted(self.uids, self.view.uids()[rows]).astype(np.int64) + 1

    def advance(self, newer: FolderView, *, allow_expunge: bool, quiet: Quiet | None = None, also: Uids | None = None) -> Delta:
        """Make `newer` the view, and return what the client has to be told. Ghosts stay when expunges may not be told now.

        `quiet` names flag changes that the client made itself with .SILENT, and so need not be told; the flags of `also` are told
        whether or not they changed.
        """
        older = self.view
        if (newer is older or newer.highestmodseq == older.highestmodseq) and (self.aligned or not allow_expunge) and also is None:
            return NO_CHANGE
        known = self.uids
        gone = self._gone(newer)
        fresh = _fresh(newer, older.uidnext)
        rows = changed_rows(older, newer)
        if quiet is not None and len(rows):
            rows = quiet.without_expected(older, newer, rows)
        if also is not None:
            told = np.zeros(newer.count, np.bool_)  # a mask: sorting the two together would take three times the rest
            told[rows] = True
            told[newer.rows_of(also)] = True
            rows = np.flatnonzero(told).astype(np.int64)
        expunged = gone if allow_expunge else NO_POSITIONS
        self.view = newer
        if allow_expunge or not len(gone):
            self.uids = newer.uids()
            self.aligned = True
        else:
            self.uids = np.concatenate([known, newer.uids()[newer.count - fresh :]]) if fresh else known
            self.aligned = False
        return Delta(expunged, known[expunged], self.count if fresh else None, rows, self.seqs_of_rows(rows))

    def compare(self, newer: FolderView) -> Delta:
        """What `advance` with expunges would return, for a session without ghosts; nothing is changed."""
        probe = Selected(self.view, read_only=self.read_only)
        return probe.advance(newer, allow_expunge=True)

    def jump(self, newer: FolderView) -> None:
        """Take over a newer view whose news the client was told by other means."""
        self.view = newer
        self.uids = newer.uids()
        self.aligned = True

    def _gone(self, newer: FolderView) -> Positions:
        """Positions of what the client knows and `newer` no longer holds."""
        fresh = _fresh(newer, self.view.uidnext)
        if len(self.uids) == newer.count - fresh:
            return NO_POSITIONS  # UIDs are never reused: as many old ones as before are the same ones
        if self.aligned and (vanished := newer.vanished_since(self.view.highestmodseq)) is not None:
            return self.positions_of(vanished)
        return missing_positions(self.uids, newer.uids())


class Quiet(NamedTuple):
    """A STORE ….SILENT of this session: where the new flags are just what it asked for, the client knows them."""

    uids: Uids
    mode: str  # add, remove, replace
    mask: np.uint64

    def without_expected(self, older: FolderView, newer: FolderView, rows: Rows) -> Rows:
        """Those of `rows` (of `newer`, in `older` too) whose flags are not just the result of this STORE on the older flags."""
        uids = newer.uids()[rows]
        before = older.flags()[np.searchsorted(older.uids(), uids)]
        after = newer.flags()[rows]
        if self.mode == "add":
            expected = before | self.mask
        elif self.mode == "remove":
            expected = before & ~self.mask
        else:
            expected = np.full(len(rows), self.mask, np.uint64)
        ours = np.zeros(len(uids), np.bool_)
        ours[positions_in(uids, self.uids)] = True
        told: Rows = rows[~(ours & (after == expected))]
        return told


def positions_in(known: Uids, uids: Uids) -> Positions:
    """Positions in `known` of those of `uids` that are in it; both ascending and unique."""
    if not len(known) or not len(uids):
        return NO_POSITIONS
    positions = np.searchsorted(known, uids)
    positions = positions[positions < len(known)] if int(uids[-1]) > int(known[-1]) else positions
    found: Positions = positions[known[positions] == uids[: len(positions)]].astype(np.int64)
    return found


def missing_positions(known: Uids, present: Uids) -> Positions:
    """Positions of those of `known` that are not in `present`; both ascending and unique."""
    if not len(present):
        return np.arange(len(known), dtype=np.int64)
    at = np.searchsorted(present, known)
    at[at == len(present)] = 0
    return np.flatnonzero(present[at] != known).astype(np.int64)


def changed_rows(older: FolderView, newer: FolderView) -> Rows:
    """Rows of `newer` that `older` had as well, and whose MODSEQ rose since."""
    old_count = newer.count - _fresh(newer, older.uidnext)
    return np.flatnonzero(newer.modseqs()[:old_count] > np.uint64(older.highestmodseq)).astype(np.int64)


def _fresh(newer: FolderView, uidnext: int) -> int:
    """How many messages at the end of `newer` have UIDs from `uidnext` on."""
    if newer.uidnext == uidnext:
        return 0
    return newer.count - int(np.searchsorted(newer.uids(), np.uint32(uidnext)))

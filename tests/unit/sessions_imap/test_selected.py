"""The client's numbering against newer views: whatever happens in between, numbers and news stay consistent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mailpod.sessions.imap.columns import cells_containing
from mailpod.sessions.imap.selected import Quiet, Selected, missing_positions, positions_in
from mailpod.store.types import BlobColumn, Rows, Uids

SETS = st.sets(st.integers(1, 60), max_size=30)


def array(numbers: Iterable[int]) -> Uids:
    return np.array(sorted(numbers), np.uint32)


class View:
    """A folder at one moment: the part of the façade that numbering needs."""

    def __init__(
        self,
        modseqs: dict[int, int],
        uidnext: int,
        highest: int,
        gone: dict[int, int] | None = None,
        flags: dict[int, int] | None = None,
    ) -> None:
        self._modseqs = modseqs
        self._gone = gone
        self._flags = flags or {}
        self.uidnext, self.highestmodseq, self.count = uidnext, highest, len(modseqs)
        self._uids = array(modseqs)

    def uids(self) -> Uids:
        return self._uids

    def modseqs(self) -> NDArray[np.uint64]:
        return np.array([self._modseqs[uid] for uid in self._uids.tolist()], np.uint64)

    def flags(self) -> NDArray[np.uint64]:
        return np.array([self._flags.get(uid, 0) for uid in self._uids.tolist()], np.uint64)

    def rows_of(self, uids: Uids) -> Rows:
        return positions_in(self._uids, uids)

    def vanished_since(self, modseq: int) -> Uids | None:
        if self._gone is None:
            return None
        return array(uid for uid, at in self._gone.items() if at > modseq)


@given(SETS, SETS)
def test_positions(known, asked):
    """A number would be counted for a message that is not there."""
    ordered = sorted(known)
    assert positions_in(array(known), array(asked)).tolist() == [ordered.index(uid) for uid in sorted(known & asked)]
    assert missing_positions(array(known), array(asked)).tolist() == [ordered.index(uid) for uid in sorted(known - asked)]


@given(st.data(), st.booleans())
@settings(max_examples=200)
def test_a_client_that_does_as_told_has_the_folder(data, remembers):
    """EXPUNGE numbers that are off by one make a client delete the wrong message."""
    modseqs = dict.fromkeys(range(1, data.draw(st.integers(0, 8)) + 1), 1)
    uidnext, seq, gone = len(modseqs) + 1, 1, {}
    first: Any = View(dict(modseqs), uidnext, seq, {} if remembers else None)
    selected = Selected(first, read_only=False)
    client = list(modseqs)
    for _ in range(data.draw(st.integers(1, 6))):
        for _ in range(data.draw(st.integers(0, 3))):
            seq += 1
            what = data.draw(st.sampled_from(["add", "drop", "flag"]))
            if what == "add":
                modseqs[uidnext] = seq
                uidnext += 1
            elif modseqs:
                uid = data.draw(st.sampled_from(sorted(modseqs)))
                if what == "drop":
                    del modseqs[uid]
                    gone[uid] = seq
                else:
                    modseqs[uid] = seq
        view: Any = View(dict(modseqs), uidnext, seq, dict(gone) if remembers else None)
        allowed = data.draw(st.booleans())
        before = set(client)
        delta = selected.advance(view, allow_expunge=allowed)
        assert allowed or not len(delta.expunged)
        for told, position in enumerate(delta.expunged.tolist()):
            client.pop(position - told)
        if delta.exists is not None:
            client += [uid for uid in sorted(modseqs) if uid not in before and uid > max(before, default=0)]
            assert len(client) == delta.exists
        assert client == selected.uids.tolist()
        assert [client[number - 1] for number in delta.seqs.tolist()] == view.uids()[delta.rows].tolist()
        assert not allowed or client == sorted(modseqs)
        rows, positions = selected.rows_at(np.arange(len(client)))
        assert view.uids()[rows].tolist() == [client[at] for at in positions.tolist()] == [uid for uid in client if uid in modseqs]


def test_quiet_hides_only_what_the_client_knows():
    """After a silent STORE, what another changed in the same moment would never be told."""
    older: Any = View({1: 1, 2: 1, 3: 1}, 4, 1, {}, {1: 0, 2: 0, 3: 0})
    newer: Any = View({1: 3, 2: 3, 3: 2}, 4, 3, {}, {1: 1, 2: 1 | 4, 3: 4})
    selected = Selected(older, read_only=False)
    delta = selected.advance(newer, allow_expunge=True, quiet=Quiet(array({1, 2}), "add", np.uint64(1)))
    assert newer.uids()[delta.rows].tolist() == [2, 3]


@given(
    st.lists(st.binary(max_size=6).map(lambda raw: bytes(97 + byte % 3 for byte in raw)), max_size=12),
    st.text("abc", min_size=1, max_size=4),
)
@settings(max_examples=200)
def test_cells(cells, needle):
    """SEARCH would find words that are made of the end of one subject and the beginning of the next."""
    raw = needle.encode()
    offsets = np.cumsum([0, *map(len, cells)]).astype(np.int64)
    assert cells_containing(BlobColumn(b"".join(cells), offsets), raw).tolist() == [raw in cell for cell in cells]

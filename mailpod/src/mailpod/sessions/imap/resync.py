"""What a client that was away has to learn (RFC 7162 §3.2): UIDs that are gone since, by memory or by comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mailpod.limits import imap_session as limits
from mailpod.protocol.imap.commands import Qresync
from mailpod.protocol.imap.sequence_set import SequenceSet
from mailpod.sessions.imap.selected import missing_positions
from mailpod.store.facade import FolderView
from mailpod.store.types import Uids


def gone_since(folder: FolderView, modseq: int, known: SequenceSet | None, above: int = 0) -> Uids:
    """UIDs of `known` (None: all) that were expunged after `modseq`.

    When that is longer ago than is remembered: everything above `above` that the client may have and that is not there (RFC 7162
    §3.2.5.2, §3.2.6 allow more to be named than was expunged).
    """
    vanished = folder.vanished_since(modseq)
    if vanished is None:
        span = np.arange(above + 1, folder.uidnext, dtype=np.uint32)
        vanished = span[missing_positions(span, folder.uids())]
    if known is None or not len(vanished):
        return vanished
    return vanished[known.mask(vanished, folder.uidnext - 1)]


def changed_since(folder: FolderView, asked: Qresync) -> NDArray[np.int64]:
    """Rows whose MODSEQ is above the client's."""
    changed = folder.modseqs() > np.uint64(asked.modseq)
    if asked.known_uids is not None:
        changed &= asked.known_uids.mask(folder.uids(), folder.uidnext - 1)
    return np.flatnonzero(changed).astype(np.int64)


def told_up_to(folder: FolderView, asked: Qresync) -> int:
    """The largest UID of the client's sample up to which its numbering is still right: nothing below is gone that it does not know of."""
    if asked.known_seqs is None or asked.matched_uids is None:
        return 0
    try:
        seqs = asked.known_seqs.numbers(limits.QRESYNC_SAMPLE_MAX)
        uids = asked.matched_uids.numbers(limits.QRESYNC_SAMPLE_MAX)
    except ValueError:
        return 0
    size = min(len(seqs), len(uids))
    seqs, uids = seqs[:size], uids[:size]
    inside = seqs <= folder.count
    right = np.zeros(size, np.bool_)
    right[inside] = folder.uids()[seqs[inside].astype(np.int64) - 1] == uids[inside]
    wrong = np.flatnonzero(~right)
    good = int(wrong[0]) if len(wrong) else size
    return int(uids[good - 1]) if good else 0

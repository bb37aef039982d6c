"""What a client is told of changes (RFC 9051 §7.4, §7.5; RFC 7162 §3.2), as chunks of whole lines. Used by commands and by the pump."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mailpod.protocol.imap import responses
from mailpod.protocol.imap.render import Column, ModseqColumn, UidColumn, render_expunge, render_fetch, render_flags
from mailpod.sessions.imap.flags import all_names
from mailpod.sessions.imap.selected import Delta
from mailpod.store.facade import FolderView
from mailpod.store.types import KEYWORDS_MAX, Rows, Uids


class Style(NamedTuple):
    """How a session wants to be told."""

    uid: bool  # FETCH with UID
    modseq: bool  # FETCH with MODSEQ: CONDSTORE is enabled
    vanished: bool  # VANISHED instead of EXPUNGE: QRESYNC is enabled


def lines(delta: Delta, view: FolderView, keywords: Sequence[str], style: Style) -> Iterator[bytes]:
    """Expunges first, so that every number after them counts without what is gone; then EXISTS; then changed flags."""
    if len(delta.expunged):
        if style.vanished:
            yield responses.vanished(delta.vanished)
        else:
            yield from render_expunge(delta.expunged)
    if delta.exists is not None:
        yield responses.exists(delta.exists)
    if len(delta.rows):
        yield from flag_changes(view, delta.rows, delta.seqs, keywords, style)


def flag_changes(view: FolderView, rows: Rows, seqs: NDArray[np.int64], keywords: Sequence[str], style: Style) -> Iterator[bytes]:
    """`* n FETCH (FLAGS …)` for rows of a view."""
    return render_flags(
        seqs,
        view.uids()[rows] if style.uid else None,
        view.flags()[rows],
        all_names(keywords),
        view.modseqs()[rows] if style.modseq else None,
    )


def resync(vanished: Uids, rows: Rows, view: FolderView, keywords: Sequence[str], style: Style) -> Iterator[bytes]:
    """The answer to SELECT … QRESYNC (RFC 7162 §3.2.5.1): what is gone, then what changed, with UIDs and MODSEQs."""
    if len(vanished):
        yield responses.vanished(vanished, earlier=True)
    if len(rows):
        yield from flag_changes(view, rows, rows + 1, keywords, style._replace(uid=True, modseq=True))


def modseq_lines(seqs: NDArray[np.int64], uids: Uids | None, modseq: int) -> Iterator[bytes]:
    """`* n FETCH (MODSEQ (m))` for messages that one commit changed."""
    if not len(seqs):
        return iter(())
    columns: list[Column] = [] if uids is None else [UidColumn(uids)]
    columns.append(ModseqColumn(np.full(len(seqs), modseq, np.uint64)))
    return render_fetch(seqs, columns)


def flag_lines(keywords: Sequence[str], read_only: bool) -> tuple[bytes, ...]:
    """FLAGS and PERMANENTFLAGS (RFC 9051 §7.3.5, §7.1)."""
    names = all_names(keywords)
    permanent = responses.code_permanentflags(() if read_only else names, not read_only and len(keywords) < KEYWORDS_MAX)
    return (
        responses.flags(names),
        responses.untagged("OK", "No permanent flags" if read_only else "Flags that last", permanent),
    )

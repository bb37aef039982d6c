"""SORT and THREAD (RFC 5256): keys from summaries in batches, the sorting itself in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mailpod.errors import Refused
from mailpod.limits import imap_session as limits
from mailpod.message.summary import Summary
from mailpod.message.threading import Columns, render_forest, thread_orderedsubject, thread_references
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.commands import SortKey
from mailpod.protocol.imap.render import render_numbers
from mailpod.protocol.imap.search_keys import uses_modseq
from mailpod.sessions.imap.answers import SEARCH_LIMIT, Answer, ok
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.families.searching import matching_rows, numbers_of, tell_after
from mailpod.sessions.imap.state import ImapState, Spec
from mailpod.sessions.imap.turns import next_turn
from mailpod.store.facade import FolderView
from mailpod.store.types import Rows

Values = Sequence[Any]  # of one kind, one a row: str or int

# RFC 5256 §3; dates: INTERNALDATE stands in for a missing one (§2.2), so they are made with it below.
_FROM_SUMMARY: dict[SortKey, Callable[[Summary], str]] = {
    SortKey.CC: lambda summary: summary.cc,
    SortKey.FROM: lambda summary: summary.from_,
    SortKey.SUBJECT: lambda summary: summary.base_subject,
    SortKey.TO: lambda summary: summary.to,
}


async def sort(state: ImapState, command: commands.Sort) -> Answer:
    """RFC 5256 §3 SORT; equal messages stay in the order of their numbers."""
    rows = await _rows(state, command)
    view = state.folder_open().view
    values = [(await _values(view, rows, criterion.key), criterion.reverse) for criterion in command.criteria]
    order = await state.services.offload(_order, len(rows), values)
    numbers = numbers_of(state, rows, uid=command.uid)[order] if len(rows) else np.empty(0, np.int64)
    ending = b"\r\n"
    if len(rows) and uses_modseq(command.key):
        ending = b" (MODSEQ %d)\r\n" % int(view.modseqs()[rows].max())  # RFC 7162 §3.1.5
    await state.write_all([*(render_numbers(b"* SORT", numbers) if len(rows) else [b"* SORT"]), ending])
    return ok("Sorted")


async def thread(state: ImapState, command: commands.Thread) -> Answer:
    """RFC 5256 §3 THREAD."""
    rows = await _rows(state, command)
    view = state.folder_open().view
    numbers = numbers_of(state, rows, uid=command.uid).tolist()
    if command.algorithm == "ORDEREDSUBJECT":
        gathered = await _gather(view, rows, (lambda summary: summary.base_subject, lambda summary: summary.sent_at))
        subjects, sent = gathered
        line = await state.services.offload(_ordered_subject, subjects, _with_arrival(view, rows, sent), numbers)
    else:
        ids, references, subjects, replies, sent = await _gather(
            view,
            rows,
            (
                lambda summary: summary.message_id,
                lambda summary: summary.references,
                lambda summary: summary.base_subject,
                lambda summary: summary.is_reply,
                lambda summary: summary.sent_at,
            ),
        )
        columns = Columns(ids, references, subjects, replies, _with_arrival(view, rows, sent))
        line = await state.services.offload(_references, columns, numbers)
    state.write(line)
    return ok("Threaded")


async def _rows(state: ImapState, command: commands.Sort | commands.Thread) -> Rows:
    rows = await matching_rows(state, command.key)
    if len(rows) > limits.SORT_MESSAGES_MAX:
        raise Refused(SEARCH_LIMIT, "sort")
    return rows


async def _gather(view: FolderView, rows: Rows, getters: Sequence[Callable[[Summary], Any]]) -> list[list[Any]]:
    """Values of the summaries of `rows`, column by column; other sessions get their turn between batches."""
    columns: list[list[Any]] = [[] for _ in getters]
    for start in range(0, len(rows), limits.FETCH_BATCH_ROWS):
        summaries = await view.summaries(rows[start : start + limits.FETCH_BATCH_ROWS])
        for column, getter in zip(columns, getters, strict=True):
            column.extend(map(getter, summaries))
        await next_turn()
    return columns


def _with_arrival(view: FolderView, rows: Rows, sent: Sequence[int]) -> list[int]:
    """RFC 5256 §2.2: INTERNALDATE where the sent date is missing."""
    arrived = view.internaldates()[rows].tolist()
    return [at or arrival for at, arrival in zip(sent, arrived, strict=True)]


async def _values(view: FolderView, rows: Rows, key: SortKey) -> Values:
    match key:
        case SortKey.ARRIVAL:
            return list(view.internaldates()[rows].tolist())
        case SortKey.SIZE:
            return list(view.sizes()[rows].tolist())
        case SortKey.DATE:
            (sent,) = await _gather(view, rows, (lambda summary: summary.sent_at,))
            return _with_arrival(view, rows, sent)
        case _:
            (texts,) = await _gather(view, rows, (_FROM_SUMMARY[key],))
            return texts


def _order(count: int, values: Sequence[tuple[Values, bool]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions in sorted order: stable sorts from the last criterion to the first. `reverse` keeps equal ones in order, too."""
    order = list(range(count))
    for column, reverse in reversed(values):
        order.sort(key=column.__getitem__, reverse=reverse)
    return np.array(order, np.int64)


def _ordered_subject(subjects: Sequence[str], sent: Sequence[int], numbers: Sequence[int]) -> bytes:
    return _line(render_forest(thread_orderedsubject(subjects, sent), numbers))


def _references(columns: Columns, numbers: Sequence[int]) -> bytes:
    return _line(render_forest(thread_references(columns), numbers))


def _line(threads: bytes) -> bytes:
    return b"* THREAD " + threads + b"\r\n" if threads else b"* THREAD\r\n"


COMMANDS = {
    commands.Sort: Spec(sort, tell_after),
    commands.Thread: Spec(thread, tell_after),
}
CAPABILITIES = (
    Capability("SORT"),
    Capability("THREAD=ORDEREDSUBJECT"),
    Capability("THREAD=REFERENCES"),
)

"""FETCH (RFC 9051 §6.4.5; RFC 7162, RFC 3516, RFC 8474, RFC 8514, RFC 8970): what is asked, whole folders from columns.

Bodies are `fetch_bodies`' work. \\Seen is set by one commit when everything has been sent, for those messages whose bytes went out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from mailpod.errors import MailError
from mailpod.limits import imap_session as limits
from mailpod.message.summary import Summary
from mailpod.protocol.imap import commands, responses
from mailpod.protocol.imap.fetch_items import BinarySection, BinarySize, BodySection, FetchAtt, FetchItem, Preview
from mailpod.protocol.imap.render import (
    BlobValues,
    Column,
    DateColumn,
    FlagsColumn,
    ModseqColumn,
    SizeColumn,
    UidColumn,
    ValueColumn,
    render_fetch,
)
from mailpod.sessions.imap.answers import EXPUNGED, Answer, bad, ok, refused
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.families.fetch_bodies import BodyItem, send_bodies
from mailpod.sessions.imap.flags import all_names
from mailpod.sessions.imap.ids import email_id
from mailpod.sessions.imap.resync import gone_since
from mailpod.sessions.imap.selected import Selected
from mailpod.sessions.imap.state import ImapState, Spec, Tell
from mailpod.store.facade import FolderView
from mailpod.store.types import SEEN, BlobColumn, Rows, Uids

log = structlog.get_logger(__name__)

_SUMMARY_VALUES: dict[FetchAtt, Callable[[Summary], bytes]] = {
    FetchAtt.ENVELOPE: lambda summary: summary.envelope,
    FetchAtt.BODY: lambda summary: summary.body,
    FetchAtt.BODYSTRUCTURE: lambda summary: summary.bodystructure,
}


class Wanted(NamedTuple):
    """The messages of a FETCH: rows of the view with the client's numbers, and whether some of those named are gone."""

    rows: Rows
    seqs: NDArray[np.int64]
    missing: bool


class Plan(NamedTuple):
    """The items, by where their values come from."""

    columns: tuple[FetchAtt, ...]  # the view's columns
    values: tuple[FetchAtt | Preview, ...]  # summaries
    bodies: tuple[BodyItem, ...]  # the message itself

    @classmethod
    def of(cls, items: Sequence[FetchItem]) -> Plan:
        """Sort the items."""
        columns = tuple(item for item in items if isinstance(item, FetchAtt) and item not in _SUMMARY_VALUES)
        values = tuple(item for item in items if isinstance(item, Preview) or (isinstance(item, FetchAtt) and item in _SUMMARY_VALUES))
        bodies = tuple(item for item in items if isinstance(item, BodySection | BinarySection | BinarySize))
        return cls(columns, values, bodies)

    @property
    def sets_seen(self) -> bool:
        """Whether a body is asked for otherwise than by PEEK."""
        return any(isinstance(item, BodySection | BinarySection) and not item.peek for item in self.bodies)


async def fetch(state: ImapState, command: commands.Fetch) -> Answer:
    """RFC 9051 §6.4.5."""
    if command.vanished and not state.qresync:
        return bad("ENABLE QRESYNC first")  # RFC 7162 §3.2.6
    if command.changed_since is not None or FetchAtt.MODSEQ in command.items:
        state.condstore = True  # RFC 7162 §3.1: CONDSTORE enabling commands
    selected = state.folder_open()
    view = selected.view
    wanted = _wanted(state, command)
    if command.vanished and command.changed_since is not None:
        state.write(responses.vanished(gone_since(view, command.changed_since, command.numbers), earlier=True))
    plan = Plan.of(command.items)
    seen: Uids | None = None
    if not len(wanted.rows):
        complete = True
    elif plan.bodies:
        sent, complete = await _with_bodies(state, view, wanted, plan)
        if plan.sets_seen and not selected.read_only:
            seen = _unseen(view, sent)
    else:
        complete = True
        await _without_bodies(state, view, wanted, plan)
    if seen is not None and len(seen):
        await _mark_seen(state, selected, seen)
    await state.tell(Tell.ALL if command.uid else Tell.NO_EXPUNGE, uid=command.uid)
    return ok("Fetched") if complete and not wanted.missing else refused(EXPUNGED)


def _wanted(state: ImapState, command: commands.Fetch) -> Wanted:
    selected = state.folder_open()
    positions = state.positions(command.numbers, uid=command.uid)
    rows, there = selected.rows_at(positions)
    missing = len(there) < len(positions)
    seqs = there + 1
    if command.changed_since is not None:
        newer = selected.view.modseqs()[rows] > np.uint64(command.changed_since)
        rows, seqs = rows[newer], seqs[newer]
    return Wanted(rows, seqs, missing)


def _unseen(view: FolderView, rows: Rows) -> Uids:
    uids: Uids = view.uids()[rows[(view.flags()[rows] & SEEN) == 0]]
    return uids


async def _mark_seen(state: ImapState, selected: Selected, uids: Uids) -> None:
    """RFC 9051 §6.4.5: the implicit \\Seen. The client has its bytes; that this could not be noted does not make the FETCH a failure."""
    try:
        await state.opened().store_flags(selected.folder_id, uids, "add", ("\\Seen",))
    except MailError as error:
        log.info("imap-seen-not-stored", session=state.wire.session_id, account=state.account_address, reason=error.reason.name)
        state.write(responses.untagged("NO", "The messages could not be marked as seen", error.reason.imap_code))


# --- from columns ---


async def _without_bodies(state: ImapState, view: FolderView, wanted: Wanted, plan: Plan) -> None:
    """Everything comes from columns and summaries: thousands of lines a write."""
    keywords = all_names(state.opened().view.keywords)
    blob: BlobColumn | None = None
    if FetchAtt.ENVELOPE in plan.values and len(wanted.rows) * limits.SUMMARY_COLUMN_FRACTION > view.count:
        blob = await view.summary_column("envelope")
    singly = [item for item in plan.values if blob is None or item is not FetchAtt.ENVELOPE]
    step = limits.FETCH_BATCH_ROWS if singly else len(wanted.rows)
    for start in range(0, len(wanted.rows), step):
        rows, seqs = wanted.rows[start : start + step], wanted.seqs[start : start + step]
        columns = [_column(view, rows, item, keywords) for item in plan.columns]
        if blob is not None:
            whole = len(rows) == view.count
            columns.append(BlobValues(b"ENVELOPE", blob.blob, blob.offsets, None if whole else rows))
        if singly:
            summaries = await view.summaries(rows)
            columns.extend(value_column(summaries, item, utf8=state.utf8) for item in singly)
        await state.write_all(render_fetch(seqs, columns))


def _column(view: FolderView, rows: Rows, item: FetchAtt, keywords: Sequence[str]) -> Column:
    whole = len(rows) == view.count
    match item:
        case FetchAtt.UID:
            return UidColumn(view.uids() if whole else view.uids()[rows])
        case FetchAtt.FLAGS:
            return FlagsColumn(view.flags() if whole else view.flags()[rows], keywords)
        case FetchAtt.MODSEQ:
            return ModseqColumn(view.modseqs()[rows])
        case FetchAtt.RFC822_SIZE:
            return SizeColumn(view.sizes()[rows])
        case FetchAtt.INTERNALDATE:
            return DateColumn(view.internaldates()[rows])
        case FetchAtt.SAVEDATE:
            return DateColumn(view.savedates()[rows], b"SAVEDATE")
        case FetchAtt.EMAILID:
            return ValueColumn(b"EMAILID", [b"(%b)" % email_id(number).encode() for number in view.email_ids()[rows].tolist()])
        case FetchAtt.THREADID:
            return ValueColumn(b"THREADID", [b"NIL"] * len(rows))  # RFC 8474 §5.2: threads have no identity here
        case _:
            raise AssertionError(item)


def value_column(summaries: Sequence[Summary], item: FetchAtt | Preview, *, utf8: bool) -> ValueColumn:
    """A summary's value for each message."""
    if isinstance(item, Preview):
        return ValueColumn(b"PREVIEW", [responses.nstring(summary.preview, utf8) for summary in summaries])
    value = _SUMMARY_VALUES[item]
    return ValueColumn(item.value.encode(), [value(summary) for summary in summaries])


# --- with bodies ---


async def _with_bodies(state: ImapState, view: FolderView, wanted: Wanted, plan: Plan) -> tuple[Rows, bool]:
    """(rows whose bodies were sent, whether those are all)."""
    keywords = all_names(state.opened().view.keywords)
    sent: list[Rows] = []
    complete = True
    needs_summaries = bool(plan.values) or any(not _whole_message(item) for item in plan.bodies)
    for start in range(0, len(wanted.rows), limits.FETCH_BATCH_ROWS):
        rows = wanted.rows[start : start + limits.FETCH_BATCH_ROWS]
        seqs = wanted.seqs[start : start + limits.FETCH_BATCH_ROWS]
        summaries = await view.summaries(rows) if needs_summaries else None
        columns = [_column(view, rows, item, keywords) for item in plan.columns]
        prefixes = list(_prefixes(seqs, columns))
        for item in plan.values:
            assert summaries is not None
            column = value_column(summaries, item, utf8=state.utf8)
            prefixes = [b"%b %b %b" % (prefix, column.label, value) for prefix, value in zip(prefixes, column.values, strict=True)]
        done = await send_bodies(state, view, rows, prefixes, summaries, plan.bodies)
        complete = complete and len(done) == len(rows)
        sent.append(done)
    return np.concatenate(sent), complete


def _whole_message(item: BodyItem) -> bool:
    return isinstance(item, BodySection) and item.part == "" and item.text.value == ""


def _prefixes(seqs: NDArray[np.int64], columns: Sequence[Column]) -> Iterator[bytes]:
    """`* n FETCH (FLAGS (…) UID u` for each message: what stands before the bodies. Columns hold no line ends: lines can be cut."""
    if not columns:
        for seq in seqs.tolist():
            yield b"* %d FETCH (" % seq
        return
    for chunk in render_fetch(seqs, columns):
        yield from chunk.split(b")\r\n")[:-1]


COMMANDS = {commands.Fetch: Spec(fetch, Tell.NOTHING)}
CAPABILITIES = (
    Capability("BINARY"),
    Capability("SAVEDATE"),
    Capability("PREVIEW"),
)

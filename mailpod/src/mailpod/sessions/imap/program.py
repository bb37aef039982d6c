"""Running a search program (RFC 9051 §6.4.4) on a folder's columns: masks first, what has to be read last and only where it still matters.

Every key is asked about a set of candidate rows and answers with those of them that match; AND narrows the candidates from the cheapest
key to the dearest. Cost is bounded: a program holds few keys (`limits.imap`), and one that reads messages stops at `limits.imap_session`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mailpod.limits import imap_session as limits
from mailpod.message.dates import parse_date
from mailpod.ports import Offload
from mailpod.protocol.imap import search_keys as keys
from mailpod.protocol.imap.search_keys import DateField, DateRelation, SearchKey
from mailpod.sessions.imap.body_search import BodySearch
from mailpod.sessions.imap.columns import cells_containing, column_cells
from mailpod.sessions.imap.flags import bit_of
from mailpod.sessions.imap.ids import email_number
from mailpod.sessions.imap.selected import Selected
from mailpod.store.facade import FolderView, SummaryField
from mailpod.store.types import Uids

Mask = NDArray[np.bool_]

_DAY_S = 86_400
_EPOCH = dt.date(1970, 1, 1)
# Header fields that summaries keep. Their text is the field's, decoded, unfolded and casefolded.
_SUMMARY_FIELDS: dict[str, SummaryField] = {
    "subject": "subject",
    "from": "from_text",
    "to": "to_text",
    "cc": "cc_text",
    "bcc": "bcc_text",
}


class Scope(NamedTuple):
    """What a program is run on."""

    selected: Selected
    keywords: Sequence[str]
    saved: Uids | None  # `$`
    now: float  # seconds since 1970-01-01 UTC
    offload: Offload
    bodies: BodySearch

    @property
    def view(self) -> FolderView:
        """The folder."""
        return self.selected.view


async def run(scope: Scope, key: SearchKey) -> Mask:
    """Which rows of the view match. Raises `Refused` (search-limit) when too much would have to be read."""
    return await _match(scope, key, np.ones(scope.view.count, np.bool_))


async def _match(scope: Scope, key: SearchKey, candidates: Mask) -> Mask:
    """Those of `candidates` that match `key`. Recurses as deep as the program is, which the parser bounds."""
    match key:
        case keys.And(parts):
            for part in sorted(parts, key=_cost):
                if not candidates.any():
                    break
                candidates = await _match(scope, part, candidates)
            return candidates
        case keys.Or(left, right):
            first, second = sorted((left, right), key=_cost)
            found = await _match(scope, first, candidates)
            return found | await _match(scope, second, candidates & ~found)
        case keys.Not(inner):
            return candidates & ~await _match(scope, inner, candidates)
        case keys.Header() | keys.Text():
            return await _text(scope, key, candidates)
        case keys.Date(field=DateField.SENT):
            return await _sent(scope, key, candidates)
        case _:
            return candidates & _COLUMNS[type(key)](scope, key)


def _cost(key: SearchKey) -> int:
    """0: a mask; 1: a summary column; 2: headers or bodies have to be read."""
    match key:
        case keys.And(parts):
            return max(map(_cost, parts))
        case keys.Or(left, right):
            return max(_cost(left), _cost(right))
        case keys.Not(inner):
            return _cost(inner)
        case keys.Text():
            return 2
        case keys.Header(field, text):
            return 1 if field in _SUMMARY_FIELDS and text else 2
        case keys.Date(field=DateField.SENT):
            return 1
        case _:
            return 0


# --- masks ---


def _constant(value: bool) -> Callable[[Scope, Any], Mask]:
    return lambda scope, _key: np.full(scope.view.count, value, np.bool_)


def _flag(scope: Scope, key: keys.Flag) -> Mask:
    bit = bit_of(key.flag, scope.keywords)
    mask: Mask = ((scope.view.flags() & bit) != 0) == key.present
    return mask


def _numbers(scope: Scope, key: keys.Numbers) -> Mask:
    selected, view = scope.selected, scope.view
    if key.numbers.saved:
        if scope.saved is None:
            return np.zeros(view.count, np.bool_)
        return np.isin(view.uids(), scope.saved, assume_unique=True)
    if key.uid:
        return key.numbers.mask(view.uids(), int(selected.uids[-1]) if selected.count else 0)
    told = key.numbers.mask(np.arange(1, selected.count + 1, dtype=np.uint32), selected.count)
    if selected.aligned:
        return told
    mask = np.zeros(view.count, np.bool_)
    rows, positions = selected.rows_at(np.arange(selected.count, dtype=np.int64))
    mask[rows] = told[positions]
    return mask


def _seconds(date: dt.date) -> int:
    return (date - _EPOCH).days * _DAY_S


def _on_days(values: NDArray[np.int64], relation: DateRelation, date: dt.date) -> Mask:
    """By date alone (RFC 9051 §6.4.4: "disregarding time and timezone"); dates kept here are in UTC."""
    start = _seconds(date)
    match relation:
        case DateRelation.BEFORE:
            return values < start
        case DateRelation.SINCE:
            return values >= start
        case DateRelation.ON:
            return (values >= start) & (values < start + _DAY_S)


def _date(scope: Scope, key: keys.Date) -> Mask:
    values = scope.view.internaldates() if key.field is DateField.INTERNAL else scope.view.savedates()
    return _on_days(values, key.relation, key.date)


def _within(scope: Scope, key: keys.Within) -> Mask:
    limit = scope.now - key.seconds
    dates = scope.view.internaldates()
    return dates <= limit if key.older else dates >= limit  # RFC 5032 §3


def _size(scope: Scope, key: keys.Size) -> Mask:
    sizes = scope.view.sizes()
    octets = min(key.octets, 2**32 - 1)
    return sizes > np.uint32(octets) if key.larger else sizes < np.uint32(octets)


def _modseq(scope: Scope, key: keys.Modseq) -> Mask:
    return scope.view.modseqs() >= np.uint64(key.modseq)


def _email_id(scope: Scope, key: keys.EmailId) -> Mask:
    number = email_number(key.email_id)
    return np.zeros(scope.view.count, np.bool_) if number is None else scope.view.email_ids() == np.uint64(number)


_COLUMNS: dict[type, Callable[[Scope, Any], Mask]] = {
    keys.All: _constant(True),
    keys.Recent: _constant(False),  # see `families.selecting`
    keys.SaveDateSupported: _constant(True),  # RFC 8514 §4.3
    keys.ThreadId: _constant(False),
    keys.Flag: _flag,
    keys.Numbers: _numbers,
    keys.Date: _date,
    keys.Within: _within,
    keys.Size: _size,
    keys.Modseq: _modseq,
    keys.EmailId: _email_id,
}


# --- texts ---


async def _text(scope: Scope, key: keys.Header | keys.Text, candidates: Mask) -> Mask:
    if not candidates.any():
        return candidates
    if isinstance(key, keys.Header) and key.text and (column := _SUMMARY_FIELDS.get(key.field)) is not None:
        cells = await scope.view.summary_column(column)
        needle = key.text.casefold().encode("utf-8", "surrogatepass")
        if len(cells.blob) > limits.COLUMN_OFFLOAD_BYTES_MIN:
            return candidates & await scope.offload(cells_containing, cells, needle)
        return candidates & cells_containing(cells, needle)
    if isinstance(key, keys.Text) and not key.text:
        return candidates  # every text contains the empty one
    if isinstance(key, keys.Header) and key.field == "message-id" and (core := key.text.strip("<> \t").casefold()):
        # Ids are kept without brackets: enough to leave out most messages; the header decides about the rest.
        ids = await scope.view.summary_column("message_id")
        candidates = candidates & (cells_containing(ids, core.encode("utf-8", "surrogatepass")) | (np.diff(ids.offsets) == 0))
    return await scope.bodies.matching(scope.view, key, candidates)


async def _sent(scope: Scope, key: keys.Date, candidates: Mask) -> Mask:
    """SENTBEFORE and its like go by the date as it is written, without its zone (RFC 9051 §6.4.4)."""
    rows = np.flatnonzero(candidates)
    cells = await scope.view.summary_column("envelope")
    values = await scope.offload(_sent_days, column_cells(cells, rows))
    known = values != _NO_DATE
    mask = np.zeros(len(candidates), np.bool_)
    mask[rows[known]] = _on_days(values[known], key.relation, key.date)
    return mask


_NO_DATE = np.iinfo(np.int64).min


def _sent_days(envelopes: Sequence[bytes]) -> NDArray[np.int64]:
    """The Date fields, in seconds by their own clock; `_NO_DATE` where there is none. An ENVELOPE begins with it."""
    days = np.full(len(envelopes), _NO_DATE, np.int64)
    for index, envelope in enumerate(envelopes):
        if envelope.startswith(b'("'):
            moment = parse_date(envelope[2 : envelope.find(b'"', 2)])
            if moment is not None:
                days[index] = moment.seconds + moment.zone_minutes * 60
    return days

"""SEARCH (RFC 9051 §6.4.4; RFC 4731 ESEARCH, RFC 5182 SEARCHRES, RFC 5032 WITHIN, RFC 7162 §3.1.5 MODSEQ)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mailpod.errors import MailError
from mailpod.protocol.imap import commands, responses
from mailpod.protocol.imap.commands import SearchReturn
from mailpod.protocol.imap.render import render_numbers
from mailpod.protocol.imap.search_keys import SearchKey, uses_modseq
from mailpod.sessions.imap.answers import Answer, ok
from mailpod.sessions.imap.body_search import BodySearch
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.program import Scope, run
from mailpod.sessions.imap.selected import NO_UIDS
from mailpod.sessions.imap.state import ImapState, Spec, Tell
from mailpod.store.facade import FolderView
from mailpod.store.types import Rows

_EXTREMES = frozenset({SearchReturn.MIN, SearchReturn.MAX})


async def search(state: ImapState, command: commands.Search) -> Answer:
    """RFC 9051 §6.4.4. What is found is a moment's: of the view that the session has when the command begins."""
    view = state.folder_open().view
    options = command.returns
    try:
        rows = await matching_rows(state, command.key)
    except MailError:
        if options is not None and SearchReturn.SAVE in options:
            state.saved = NO_UIDS  # RFC 5182 §2.1: a SAVE that fails leaves $ empty
        raise
    if options is not None and SearchReturn.SAVE in options:
        state.saved = view.uids()[_saved(rows, options)]
    if options is None and not state.rev2:
        await state.write_all(_plain(state, command, view, rows))
    else:
        _extended(state, command, view, rows, options or frozenset({SearchReturn.ALL}))
    return ok("Searched")


async def matching_rows(state: ImapState, key: SearchKey) -> Rows:
    """Rows of the selected view that a program matches, ascending."""
    services = state.services
    if uses_modseq(key):
        state.condstore = True  # RFC 7162 §3.1: a CONDSTORE enabling command
    scope = Scope(
        state.folder_open(),
        state.opened().view.keywords,
        state.saved,
        services.clock.now(),
        services.offload,
        BodySearch(services.clock, services.offload),
    )
    return np.flatnonzero(await run(scope, key)).astype(np.int64)


def numbers_of(state: ImapState, rows: Rows, *, uid: bool) -> NDArray[np.int64] | NDArray[np.uint32]:
    """What the client calls these rows: UIDs, or its sequence numbers."""
    selected = state.folder_open()
    return selected.view.uids()[rows] if uid else selected.seqs_of_rows(rows)


def _highest_modseq(view: FolderView, rows: Rows) -> int:
    return int(view.modseqs()[rows].max())


def _plain(state: ImapState, command: commands.Search, view: FolderView, rows: Rows) -> list[bytes]:
    """RFC 3501 §7.2.5 `* SEARCH`."""
    if not len(rows):
        return [b"* SEARCH\r\n"]
    modseq = b" (MODSEQ %d)" % _highest_modseq(view, rows) if uses_modseq(command.key) else b""
    return [*render_numbers(b"* SEARCH", numbers_of(state, rows, uid=command.uid)), modseq + b"\r\n"]


def _extended(state: ImapState, command: commands.Search, view: FolderView, rows: Rows, options: frozenset[SearchReturn]) -> None:
    """RFC 4731 §3.1; with SAVE alone nothing is returned (RFC 5182 §2.2)."""
    shown = options - {SearchReturn.SAVE}
    if not shown:
        return
    numbers = numbers_of(state, rows, uid=command.uid)
    some = len(rows) > 0
    modseq = None
    if some and uses_modseq(command.key):
        # RFC 7162 §3.1.5: of the messages that are returned, where only the first and the last are.
        modseq = _highest_modseq(view, _saved(rows, shown))
    state.write(
        responses.esearch(
            state.current_tag,
            command.uid,
            minimum=int(numbers[0]) if some and SearchReturn.MIN in shown else None,
            maximum=int(numbers[-1]) if some and SearchReturn.MAX in shown else None,
            count=len(rows) if SearchReturn.COUNT in shown else None,
            all_=numbers if SearchReturn.ALL in shown else None,
            modseq=modseq,
        )
    )


def _saved(rows: Rows, options: frozenset[SearchReturn]) -> Rows:
    """RFC 5182 §2.4: with MIN and MAX only, just those; else everything that was found."""
    others = options - {SearchReturn.SAVE}
    if not others or others - _EXTREMES or not len(rows):
        return rows
    ends = ([0] if SearchReturn.MIN in others else []) + ([len(rows) - 1] if SearchReturn.MAX in others else [])
    return rows[sorted(set(ends))]


def tell_after(command: commands.Search | commands.Sort | commands.Thread) -> Tell:
    """RFC 9051 §7.5.1, RFC 5256 §3: no EXPUNGE while sequence numbers are the answer."""
    return Tell.ALL if command.uid else Tell.NO_EXPUNGE


COMMANDS = {commands.Search: Spec(search, tell_after)}
CAPABILITIES = (
    Capability("ESEARCH"),
    Capability("SEARCHRES"),
    Capability("WITHIN"),
)

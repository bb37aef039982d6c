"""STORE (RFC 9051 §6.4.6) with UNCHANGEDSINCE (RFC 7162 §3.1.3)."""

from __future__ import annotations

from mailpod.errors import Refused
from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap import answers, news
from mailpod.sessions.imap.answers import Answer, bad, ok, refused
from mailpod.sessions.imap.flags import mask_of
from mailpod.sessions.imap.selected import Positions, Quiet
from mailpod.sessions.imap.state import ImapState, Spec, Tell
from mailpod.store.types import FlagsStored, Uids


async def store(state: ImapState, command: commands.Store) -> Answer:
    """One commit for all messages. What changed is told by comparing views, so that others' changes come in the same lines."""
    selected = state.folder_open()
    if selected.read_only:
        raise Refused(answers.READ_ONLY)
    if "\\Recent" in command.flags:
        return bad("\\Recent can't be changed")
    positions = state.positions(command.numbers, uid=command.uid)
    rows, there = selected.rows_at(positions)
    missing = len(there) < len(positions)
    if command.unchanged_since is not None:
        state.condstore = True  # RFC 7162 §3.1: a CONDSTORE enabling command
    if not len(rows):
        return refused(answers.EXPUNGED) if missing else ok("Nothing to store")
    account = state.opened()
    uids = selected.view.uids()[rows]
    stored = await account.store_flags(selected.folder_id, uids, command.mode.value, command.flags, command.unchanged_since)
    quiet = None
    if command.silent:
        quiet = Quiet(uids, command.mode.value, mask_of(command.flags, account.view.keywords))
    tell = Tell.ALL if command.uid else Tell.NO_EXPUNGE
    if command.silent and state.condstore:
        await _tell_modseqs(state, stored, uid=command.uid)  # RFC 7162 §3.1.3: .SILENT spares FLAGS, not MODSEQ
    # RFC 9051 §6.4.6: without .SILENT the value is returned, changed or not.
    await state.tell(tell, quiet=quiet, also=None if command.silent else uids, uid=command.uid)
    return _answer(state, command, stored, missing=missing)


async def _tell_modseqs(state: ImapState, stored: FlagsStored, *, uid: bool) -> None:
    selected = state.folder_open()
    seqs = selected.positions_of(stored.changed) + 1
    await state.write_all(news.modseq_lines(seqs, selected.uids[seqs - 1] if uid or state.style.uid else None, stored.modseq))


def _answer(state: ImapState, command: commands.Store, stored: FlagsStored, *, missing: bool) -> Answer:
    """RFC 7162 §3.1.3 MODIFIED; RFC 2180 §4.2: messages that another has expunged."""
    if len(stored.failed):
        numbers: Uids | Positions = stored.failed if command.uid else state.folder_open().positions_of(stored.failed) + 1
        if len(numbers):
            return ok("Some messages were changed by others meanwhile", responses.code_modified(numbers))
    return refused(answers.EXPUNGED) if missing else ok("Stored")


COMMANDS = {commands.Store: Spec(store, Tell.NOTHING)}
CAPABILITIES = ()

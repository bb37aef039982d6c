"""COPY, MOVE, EXPUNGE (RFC 9051 §6.4.3, §6.4.7, §6.4.8; RFC 4315, RFC 6851)."""

from __future__ import annotations

from mailpod.errors import OVER_QUOTA, Refused
from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap import answers
from mailpod.sessions.imap.answers import Answer, no, ok, refused
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.families.appending import over_quota
from mailpod.sessions.imap.selected import NO_UIDS
from mailpod.sessions.imap.state import ImapState, Spec, Tell
from mailpod.store.types import Copied, Uids


async def copy(state: ImapState, command: commands.Copy) -> Answer:
    """RFC 9051 §6.4.7: all or nothing; where the copies are is told by COPYUID (RFC 4315 §3)."""
    target = await state.folder(command.mailbox, try_create=True)
    selected = state.folder_open()
    uids, missing = _named(state, command)
    if missing:
        return refused(answers.EXPUNGED)  # RFC 2180 §4.4: COPY of a message that is gone fails as a whole
    if not len(uids):
        return ok("Nothing to copy")
    size = int(selected.view.sizes()[selected.view.rows_of(uids)].sum(dtype="int64"))
    if await over_quota(state, size):
        raise Refused(OVER_QUOTA)
    copied = await state.opened().copy(selected.folder_id, uids, target.id)
    return ok("Copied", _copyuid(copied))


async def move(state: ImapState, command: commands.Move) -> Answer:
    """RFC 6851 §3.3: COPYUID comes before the expunges, in an untagged answer, so that a client can follow each message."""
    target = await state.folder(command.mailbox, try_create=True)
    selected = state.folder_open()
    if selected.read_only:
        raise Refused(answers.READ_ONLY)
    uids, _ = _named(state, command)
    if not len(uids):
        return ok("Nothing to move")
    if target.id == selected.folder_id:
        return no("The messages are in this folder already", "CANNOT", "move-to-itself")
    moved = await state.opened().move(selected.folder_id, uids, target.id)
    if code := _copyuid(moved):
        state.write(responses.untagged("OK", "Moved", code))
    await state.tell(Tell.ALL, uid=command.uid)
    return ok("Moved", _highest(state))


async def expunge(state: ImapState, command: commands.Expunge) -> Answer:
    """RFC 9051 §6.4.3; UID EXPUNGE only of the set that is named (RFC 4315 §2.1)."""
    selected = state.folder_open()
    if selected.read_only:
        raise Refused(answers.READ_ONLY)
    uids: Uids | None = None
    if command.uids is not None:
        uids = selected.uids_at(state.positions(command.uids, uid=True))
    if uids is None or len(uids):
        await state.opened().expunge(selected.folder_id, uids)
    await state.tell(Tell.ALL, uid=command.uids is not None)
    return ok("Expunged", _highest(state))


def _named(state: ImapState, command: commands.Copy | commands.Move) -> tuple[Uids, bool]:
    """UIDs that the command means, and whether some of them are gone."""
    selected = state.folder_open()
    positions = state.positions(command.numbers, uid=command.uid)
    if not len(positions):
        return NO_UIDS, False
    rows, there = selected.rows_at(positions)
    return selected.view.uids()[rows], len(there) < len(positions)


def _copyuid(copied: Copied) -> str:
    return responses.code_copyuid(copied.uidvalidity, copied.uids, copied.new_uids) if len(copied.uids) else ""


def _highest(state: ImapState) -> str:
    """RFC 7162 §3.2.7, §3.2.9: after an expunge a QRESYNC client learns the MODSEQ up to which it knows everything."""
    return f"HIGHESTMODSEQ {state.selected.view.highestmodseq}" if state.qresync and state.selected is not None else ""


COMMANDS = {
    commands.Copy: Spec(copy),
    commands.Move: Spec(move, Tell.NOTHING),
    commands.Expunge: Spec(expunge, Tell.NOTHING),
}
CAPABILITIES = (Capability("MOVE"),)

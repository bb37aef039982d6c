"""SELECT, EXAMINE, CLOSE, UNSELECT, CHECK (RFC 9051 §6.3.2, §6.4.1, §6.4.2; RFC 7162 §3.2.5).

\\Recent (RFC 3501 §2.3.2) is given to no message, and RECENT is 0: whether another session was told of a message first can't be said of
pods that share nothing but a bucket, and IMAP4rev2 dropped it for that reason.
"""

from __future__ import annotations

import numpy as np

from mailpod.errors import Refused
from mailpod.limits import imap_session as limits
from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap import answers, news
from mailpod.sessions.imap.answers import Answer, bad, ok
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.ids import mailbox_id
from mailpod.sessions.imap.resync import changed_since, gone_since, told_up_to
from mailpod.sessions.imap.state import ImapState, Spec, Tell
from mailpod.store.facade import FolderView
from mailpod.store.types import SEEN, SEPARATOR


async def select(state: ImapState, command: commands.Select) -> Answer:
    """RFC 9051 §6.3.2: the newest state of the folder, asked of the store. A SELECT that fails leaves nothing selected."""
    if command.qresync is not None and not state.qresync:
        return bad("ENABLE QRESYNC first")  # RFC 7162 §3.2.5
    account = state.opened()
    if state.selected is not None:
        if state.qresync or state.rev2:
            state.write(responses.untagged("OK", "The folder before is closed", "CLOSED"))  # RFC 7162 §3.2.11, RFC 9051 §6.3.2
        state.deselect()
    view = await account.refresh(0.0)
    folder = view.folder(command.mailbox)
    if folder is None:
        raise Refused(answers.NO_SUCH_FOLDER)
    if command.condstore or command.qresync is not None:
        state.condstore = True
    state.select(folder, read_only=command.read_only)
    state.told_keywords = len(view.keywords)
    state.write(b"".join(_opening(state, folder, view.keywords, read_only=command.read_only)))
    if command.qresync is not None and command.qresync.uidvalidity == folder.uidvalidity:
        asked = command.qresync
        vanished = gone_since(folder, asked.modseq, asked.known_uids, told_up_to(folder, asked))
        await state.write_all(news.resync(vanished, changed_since(folder, asked), folder, view.keywords, state.style))
    return ok("Folder selected", "READ-ONLY" if command.read_only else "READ-WRITE")


def _opening(state: ImapState, folder: FolderView, keywords: tuple[str, ...], *, read_only: bool) -> list[bytes]:
    """RFC 9051 §6.3.2's required untagged answers, and those of the extensions."""
    lines = [*news.flag_lines(keywords, read_only), responses.exists(folder.count)]
    if not state.rev2:
        lines.append(responses.recent(0))
        unseen = np.flatnonzero((folder.flags() & SEEN) == 0)[:1]
        if len(unseen):
            lines.append(responses.untagged("OK", "First unseen message", f"UNSEEN {int(unseen[0]) + 1}"))  # RFC 3501 §6.3.1
    lines.append(responses.untagged("OK", "UIDs valid", f"UIDVALIDITY {folder.uidvalidity}"))
    lines.append(responses.untagged("OK", "Predicted next UID", f"UIDNEXT {folder.uidnext}"))
    lines.append(responses.untagged("OK", "Highest MODSEQ", f"HIGHESTMODSEQ {folder.highestmodseq}"))  # RFC 7162 §3.1.2.1
    lines.append(responses.untagged("OK", "Folder identity", responses.code_mailboxid(mailbox_id(folder))))  # RFC 8474 §4.2
    if state.rev2:
        lines.append(responses.list_((), SEPARATOR, folder.name, True))  # RFC 9051 §6.3.2: LIST is required
    return lines


async def close(state: ImapState, _command: commands.Close) -> Answer:
    """RFC 9051 §6.4.2: expunge, unless read-only, without telling."""
    selected = state.folder_open()
    if not selected.read_only:
        await state.opened().expunge(selected.folder_id)
    state.deselect()
    return ok("Closed")


async def unselect(state: ImapState, _command: commands.Unselect) -> Answer:
    """RFC 9051 §6.4.3 (RFC 3691): close without expunging."""
    state.deselect()
    return ok("Unselected")


async def check(state: ImapState, _command: commands.Check) -> Answer:
    """RFC 3501 §6.4.1. Everything is durable already; it serves as NOOP."""
    await state.opened().refresh(limits.REFRESH_NOOP_S)
    return ok("Checked")


COMMANDS = {
    commands.Select: Spec(select, Tell.NOTHING),
    commands.Close: Spec(close, Tell.NOTHING),
    commands.Unselect: Spec(unselect, Tell.NOTHING),
    commands.Check: Spec(check),
}
CAPABILITIES = (
    Capability("UNSELECT"),
    Capability("CONDSTORE"),
    Capability("QRESYNC"),
)

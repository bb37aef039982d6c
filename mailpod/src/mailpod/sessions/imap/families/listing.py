"""LIST, LSUB, STATUS (RFC 9051 §6.3.9, §6.3.11; RFC 5258, RFC 5819, RFC 6154, RFC 3501 §6.3.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mailpod.limits import imap_session as limits
from mailpod.protocol.imap import commands, responses
from mailpod.protocol.imap.commands import ListReturn, ListSelect, StatusItem
from mailpod.sessions.imap.answers import Answer, no, ok
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.folder_names import matcher, parents
from mailpod.sessions.imap.ids import mailbox_id
from mailpod.sessions.imap.state import ImapState, Spec
from mailpod.store.facade import AccountView, FolderView
from mailpod.store.types import DELETED, SEEN, SEPARATOR

Match = Callable[[str], bool]


async def list_(state: ImapState, command: commands.List) -> Answer:
    """RFC 9051 §6.3.9, with LIST-EXTENDED, LIST-STATUS, CHILDREN and SPECIAL-USE."""
    if not command.extended and command.patterns == ("",):
        state.write(responses.list_separator(SEPARATOR))
        return ok("Listed")
    view = await state.opened().refresh(limits.REFRESH_NOOP_S)
    utf8 = state.utf8 or state.rev2
    matches = _any_of(command.reference, command.patterns)
    count = 0
    for name, attributes, childinfo in _listed(view, matches, command):
        if (count := count + 1) > limits.LIST_FOLDERS_MAX:
            return no("Too many folders match", "LIMIT", "list-limit")
        state.write(responses.list_(attributes, SEPARATOR, name, utf8, childinfo=childinfo))
        folder = view.folder(name)
        if command.status is not None and folder is not None:
            _note_condstore(state, command.status)
            state.write(responses.status(name, status_items(state, folder, command.status), utf8))
        if state.wire.congested:
            await state.wire.drained()
    return ok("Listed")


def _any_of(reference: str, patterns: Sequence[str]) -> Match:
    """Whether a name matches one of the patterns; the reference simply stands before them (RFC 9051 §6.3.9)."""
    each = [matcher(reference + pattern) for pattern in patterns if pattern]
    return lambda name: any(match(name) for match in each)


def _listed(view: AccountView, matches: Match, command: commands.List) -> Iterator[tuple[str, list[str], tuple[str, ...]]]:
    """(name, attributes, CHILDINFO) of what is to be listed, in the account's order."""
    only_subscribed = ListSelect.SUBSCRIBED in command.select
    show_subscribed = only_subscribed or ListReturn.SUBSCRIBED in command.returns
    recursive = ListSelect.RECURSIVEMATCH in command.select
    names = {folder.name: folder for folder in view.folders()}
    with_children = {parent for name in names for parent in parents(name)[-1:]}
    above = {parent for name in view.subscriptions for parent in parents(name)} if recursive else set()
    candidates = list(names)
    if only_subscribed:
        # Subscribed names are listed whether or not they exist (RFC 5258 §3.1); with RECURSIVEMATCH also what is above them.
        candidates += sorted((view.subscriptions | above) - names.keys())
    for name in candidates:
        if not matches(name):
            continue
        folder = names.get(name)
        subscribed = name in view.subscriptions
        # RFC 5258 §3.5: named for its subscribed descendants that the patterns do not show.
        childinfo = ("SUBSCRIBED",) if recursive and only_subscribed and name in above else ()
        if only_subscribed and not subscribed and not childinfo:
            continue
        if ListSelect.SPECIAL_USE in command.select and (folder is None or not folder.special_use):
            continue
        attributes = [] if folder is not None else ["\\NonExistent"]
        if show_subscribed and subscribed:
            attributes.append("\\Subscribed")
        attributes.append("\\HasChildren" if name in with_children else "\\HasNoChildren")
        if folder is not None and folder.special_use:
            attributes.append(folder.special_use)
        yield name, attributes, childinfo


async def lsub(state: ImapState, command: commands.Lsub) -> Answer:
    """RFC 3501 §6.3.9: what is subscribed; a level that is not, above one that is, shows as \\Noselect where `%` stops at it."""
    if command.pattern == "":
        state.write(responses.lsub(("\\Noselect",), SEPARATOR, "", False))
        return ok("Listed")
    view = await state.opened().refresh(limits.REFRESH_NOOP_S)
    utf8 = state.utf8 or state.rev2
    matches = matcher(command.reference + command.pattern)
    shown = {name for name in view.subscriptions if matches(name)}
    implied: set[str] = set()
    if command.pattern.endswith("%"):
        implied = {parent for name in view.subscriptions for parent in parents(name) if matches(parent)} - shown
    for name in sorted(shown | implied):
        attributes = ("\\Noselect",) if name in implied or view.folder(name) is None else ()
        state.write(responses.lsub(attributes, SEPARATOR, name, utf8))
        if state.wire.congested:
            await state.wire.drained()
    return ok("Listed")


async def status(state: ImapState, command: commands.Status) -> Answer:
    """RFC 9051 §6.3.11."""
    await state.opened().refresh(limits.REFRESH_NOOP_S)
    folder = await state.folder(command.mailbox)
    _note_condstore(state, command.items)
    state.write(responses.status(folder.name, status_items(state, folder, command.items), state.utf8 or state.rev2))
    return ok("Status told")


def _note_condstore(state: ImapState, items: Sequence[StatusItem]) -> None:
    if StatusItem.HIGHESTMODSEQ in items:
        state.condstore = True  # RFC 7162 §3.1: a CONDSTORE enabling command


def status_items(state: ImapState, folder: FolderView, items: Sequence[StatusItem]) -> list[tuple[str, int | str | None]]:
    """The values that were asked for."""
    return [(item.value, _STATUS[item](state, folder)) for item in items]


def _deleted(folder: FolderView) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = (folder.flags() & DELETED) != 0
    return mask


_STATUS: dict[StatusItem, Callable[[ImapState, FolderView], int | str | None]] = {
    StatusItem.MESSAGES: lambda _state, folder: folder.count,
    StatusItem.RECENT: lambda _state, _folder: 0,  # no message is ever \Recent here: see `selecting`
    StatusItem.UIDNEXT: lambda _state, folder: folder.uidnext,
    StatusItem.UIDVALIDITY: lambda _state, folder: folder.uidvalidity,
    StatusItem.UNSEEN: lambda _state, folder: folder.count - int(np.count_nonzero(folder.flags() & SEEN)),
    StatusItem.DELETED: lambda _state, folder: int(np.count_nonzero(_deleted(folder))),
    StatusItem.DELETED_STORAGE: lambda _state, folder: int(folder.sizes()[_deleted(folder)].sum(dtype=np.int64)),
    StatusItem.SIZE: lambda _state, folder: int(folder.sizes().sum(dtype=np.int64)),
    StatusItem.HIGHESTMODSEQ: lambda _state, folder: folder.highestmodseq,
    StatusItem.MAILBOXID: lambda _state, folder: mailbox_id(folder),
    StatusItem.APPENDLIMIT: lambda state, _folder: state.append_limit(),
}

COMMANDS = {
    commands.List: Spec(list_),
    commands.Lsub: Spec(lsub),
    commands.Status: Spec(status),
}
CAPABILITIES = (
    Capability("CHILDREN"),
    Capability("LIST-EXTENDED"),
    Capability("LIST-STATUS"),
    Capability("SPECIAL-USE"),
    Capability("STATUS=SIZE"),
    Capability("OBJECTID"),
)

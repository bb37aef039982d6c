"""A view of an account written down as plain values, so that two can be compared, and a client's memory of a folder brought up to date."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mailpod.store.facade import AccountView, FolderView
from mailpod.store.types import FIRST_KEYWORD_BIT, SYSTEM_FLAGS

Flags = frozenset[str]


class MessagePicture(NamedTuple):
    """One message as a client sees it."""

    uid: int
    modseq: int
    flags: Flags
    internaldate: int
    savedate: int
    size: int
    email_id: int


class FolderPicture(NamedTuple):
    """One folder."""

    id: int
    name: str
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    special_use: str
    messages: tuple[MessagePicture, ...]


class Picture(NamedTuple):
    """A whole account at one seq."""

    seq: int
    folders: tuple[FolderPicture, ...]  # by id
    subscriptions: tuple[str, ...]
    usage_bytes: int
    usage_messages: int


def flag_names(mask: int, keywords: tuple[str, ...]) -> Flags:
    """The flags of a mask."""
    names = [name for bit, name in enumerate(SYSTEM_FLAGS) if mask >> bit & 1]
    names += [name for bit, name in enumerate(keywords) if mask >> (FIRST_KEYWORD_BIT + bit) & 1]
    return frozenset(names)


def folder_picture(folder: FolderView, keywords: tuple[str, ...]) -> FolderPicture:
    """One folder of a view. Checks on the way that its columns agree among themselves."""
    columns = (
        folder.uids(),
        folder.modseqs(),
        folder.flags(),
        folder.internaldates(),
        folder.savedates(),
        folder.sizes(),
        folder.email_ids(),
    )
    assert all(len(column) == folder.count for column in columns), f"columns of {folder.name} have different lengths"
    names: dict[int, Flags] = {}
    messages = []
    for uid, modseq, mask, internal, save, size, email in zip(*(column.tolist() for column in columns), strict=True):
        flags = names.get(mask)
        if flags is None:
            flags = names[mask] = flag_names(mask, keywords)
        messages.append(MessagePicture(uid, modseq, flags, internal, save, size, email))
    return FolderPicture(
        folder.id, folder.name, folder.uidvalidity, folder.uidnext, folder.highestmodseq, folder.special_use, tuple(messages)
    )


def picture(view: AccountView) -> Picture:
    """A view, whole."""
    folders = sorted((folder_picture(folder, view.keywords) for folder in view.folders()), key=lambda folder: folder.id)
    return Picture(view.seq, tuple(folders), tuple(sorted(view.subscriptions)), view.usage.bytes, view.usage.messages)


class Mirror:
    """A client's copy of one folder, kept up to date as RFC 7162 (QRESYNC) says: from MODSEQ to MODSEQ, without reading it all."""

    def __init__(self, folder: FolderView, keywords: tuple[str, ...]) -> None:
        self.folder_id = folder.id
        self.uidvalidity = folder.uidvalidity
        self.highestmodseq = folder.highestmodseq
        self.known: dict[int, Flags] = _flags_by_uid(folder, keywords)

    def catch_up(self, folder: FolderView, keywords: tuple[str, ...]) -> str:
        """Apply what the server tells since our MODSEQ; returns what then differs from the folder, "" when nothing does."""
        if folder.uidvalidity != self.uidvalidity:
            self.__init__(folder, keywords)  # type: ignore[misc]  # a client forgets all and begins anew
            return ""
        gone = folder.vanished_since(self.highestmodseq)
        uids = folder.uids()
        if gone is None:
            here = set(uids.tolist())
            self.known = {uid: flags for uid, flags in self.known.items() if uid in here}
        else:
            for uid in gone.tolist():
                self.known.pop(uid, None)
        changed = folder.modseqs() > np.uint64(self.highestmodseq)
        for uid, mask in zip(uids[changed].tolist(), folder.flags()[changed].tolist(), strict=True):
            self.known[uid] = flag_names(mask, keywords)
        self.highestmodseq = folder.highestmodseq
        truth = _flags_by_uid(folder, keywords)
        if truth == self.known:
            return ""
        wrong = sorted(uid for uid in truth.keys() | self.known.keys() if truth.get(uid) != self.known.get(uid))
        return f"uids {wrong[:5]}: {[(self.known.get(uid), truth.get(uid)) for uid in wrong[:2]]}"


def _flags_by_uid(folder: FolderView, keywords: tuple[str, ...]) -> dict[int, Flags]:
    return {uid: flag_names(mask, keywords) for uid, mask in zip(folder.uids().tolist(), folder.flags().tolist(), strict=True)}

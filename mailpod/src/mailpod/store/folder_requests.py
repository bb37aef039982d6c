"""What callers want of an account's folders and lists; see `requests`."""

from __future__ import annotations

from mailpod.errors import Refused
from mailpod.limits import store as limits
from mailpod.store import columns, names, uidset
from mailpod.store import operations as ops
from mailpod.store.reasons import (
    BAD_FOLDER_NAME,
    FOLDER_EXISTS,
    FOLDER_HAS_CHILDREN,
    INBOX_STAYS,
    LIMIT,
    SPECIAL_USE_TAKEN,
)
from mailpod.store.requests import Append, Batch, Request, remember_less
from mailpod.store.state import Folder
from mailpod.store.types import SEPARATOR, Appended


class CreateFolder(Request):
    """RFC 9051 §6.3.4, RFC 6154 §3."""

    def __init__(self, incarnation: int, name: str, special_use: str) -> None:
        super().__init__(incarnation)
        self.name = names.canonical(name)
        self.special_use = special_use

    def evaluate(self, batch: Batch) -> int:
        """The folder's id."""
        state = batch.state
        self.check_incarnation(state)
        if state.folder_named(self.name) is not None:
            raise Refused(FOLDER_EXISTS)
        if self.special_use and any(folder.special_use == self.special_use for folder in state.folders.values()):
            raise Refused(SPECIAL_USE_TAKEN)
        missing = [name for name in names.parents(self.name) if state.folder_named(name) is None]
        make_folders(batch, [*((name, "") for name in missing), (self.name, self.special_use)])
        return state.next_folder - 1


def make_folders(batch: Batch, wanted: list[tuple[str, str]]) -> None:
    """Folders of these names and special uses, which do not exist. Raises `Refused` (limit)."""
    state = batch.state
    if len(state.folders) + len(wanted) > limits.FOLDERS_MAX or state.next_uidvalidity + len(wanted) > limits.UIDVALIDITY_MAX:
        raise Refused(LIMIT, "folders")
    for name, use in wanted:
        batch.builder.do(ops.FolderCreated(ops.FolderSpec(state.next_folder, name, use, state.next_uidvalidity)))


class DeleteFolder(Request):
    """RFC 9051 §6.3.5."""

    def __init__(self, incarnation: int, folder_id: int) -> None:
        super().__init__(incarnation)
        self.folder_id = folder_id

    def evaluate(self, batch: Batch) -> None:
        """Gone with its messages."""
        state = batch.state
        self.check_incarnation(state)
        folder = self.folder(state, self.folder_id)
        if folder.name == names.INBOX:
            raise Refused(INBOX_STAYS)
        below = folder.name + SEPARATOR
        if any(other.name.startswith(below) for other in state.folders.values()):
            raise Refused(FOLDER_HAS_CHILDREN)
        batch.builder.do(ops.FolderDeleted(folder.id))


class RenameFolder(Request):
    """RFC 9051 §6.3.6."""

    def __init__(self, incarnation: int, folder_id: int, name: str) -> None:
        super().__init__(incarnation)
        self.folder_id = folder_id
        self.name = names.canonical(name)

    def evaluate(self, batch: Batch) -> None:
        """Renamed with all below it."""
        state, builder = batch.state, batch.builder
        self.check_incarnation(state)
        folder = self.folder(state, self.folder_id)
        if state.folder_named(self.name) is not None:
            raise Refused(FOLDER_EXISTS)
        if folder.name == names.INBOX:
            self._empty_inbox(batch, folder)
            return
        below = folder.name + SEPARATOR
        if self.name.startswith(below):
            raise Refused(BAD_FOLDER_NAME, "below itself")
        renames = [(folder.id, self.name)]
        renames += [
            (other.id, names.canonical(self.name + SEPARATOR + other.name[len(below) :]))
            for other in state.folders.values()
            if other.name.startswith(below)
        ]
        taken = {other.name for other in state.folders.values()}
        if any(name in taken for _, name in renames):
            raise Refused(FOLDER_EXISTS, "one below")
        missing = [name for name in names.parents(self.name) if name not in taken]
        make_folders(batch, [(name, "") for name in missing])
        for folder_id, name in renames:
            builder.do(ops.FolderRenamed(folder_id, name))

    def _empty_inbox(self, batch: Batch, inbox: Folder) -> None:
        """§6.3.6: the messages move to a new mailbox, INBOX stays, what is below it too."""
        state = batch.state
        missing = [name for name in names.parents(self.name) if state.folder_named(name) is None]
        make_folders(batch, [(name, "") for name in [*missing, self.name]])
        uids = columns.uid_column(inbox.chunks)
        if len(uids):
            remember_less(batch, inbox, len(uids))
            batch.builder.do(ops.CopiedOver(inbox.id, uidset.pack(uids), state.next_folder - 1, 1, batch.saved, True))


class Subscribe(Request):
    """RFC 9051 §6.3.7: names that need not exist."""

    def __init__(self, incarnation: int, name: str, subscribed: bool) -> None:
        super().__init__(incarnation)
        self.name = names.canonical(name)
        self.subscribed = subscribed

    def evaluate(self, batch: Batch) -> None:
        """On or off the list."""
        state = batch.state
        self.check_incarnation(state)
        if (self.name in state.subscriptions) == self.subscribed:
            return
        if self.subscribed and len(state.subscriptions) >= limits.SUBSCRIPTIONS_MAX:
            raise Refused(LIMIT, "subscriptions")
        batch.builder.do(ops.Subscribed(self.name, self.subscribed))


class Mark(Request):
    """A resumable import's place, together with what else is in `also` (an append)."""

    def __init__(self, incarnation: int, key: str, value: str, also: Append | None = None) -> None:
        super().__init__(incarnation)
        self.key = key
        self.value = value
        self.also = also
        self.weight = 512 + (also.weight if also is not None else 0)
        self.messages = also.messages if also is not None else 0

    def evaluate(self, batch: Batch) -> Appended | None:
        """The append's outcome."""
        state = batch.state
        self.check_incarnation(state)
        if len(self.key) + len(self.value) > limits.MARKER_BYTES_MAX or (
            self.value and self.key not in state.markers and len(state.markers) >= limits.MARKERS_MAX
        ):
            raise Refused(LIMIT, "markers")
        outcome = self.also.evaluate(batch) if self.also is not None else None
        if state.markers.get(self.key, "") != self.value:
            batch.builder.do(ops.Marked(self.key, self.value))
        return outcome

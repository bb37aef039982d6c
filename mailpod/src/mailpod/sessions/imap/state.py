"""What a session knows, and the services that the command families use on it."""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from mailpod.contract import MailboxConfig
from mailpod.errors import Reason, Refused
from mailpod.limits import imap_session as limits
from mailpod.protocol.imap.events import Line
from mailpod.protocol.imap.reader import Reader
from mailpod.protocol.imap.sequence_set import OutOfRange, SequenceSet
from mailpod.sessions.imap import answers, news
from mailpod.sessions.imap.answers import Answer
from mailpod.sessions.imap.folder_names import canonical
from mailpod.sessions.imap.selected import NO_POSITIONS, Positions, Quiet, Selected
from mailpod.sessions.imap.turns import next_turn
from mailpod.sessions.services import Services
from mailpod.sessions.wire import Wire
from mailpod.store.facade import Account, AccountView, FolderView
from mailpod.store.types import Uids

if TYPE_CHECKING:
    from mailpod.sessions.imap.hub import Hub


class Tell(enum.Enum):
    """What a command lets the client be told before its tagged answer."""

    NOTHING = 0  # no folder is involved any more, or the command has told everything itself
    NO_EXPUNGE = 1  # RFC 9051 §7.5.1: FETCH, STORE, SEARCH (and SORT, THREAD: RFC 5256 §3) by sequence number
    ALL = 2


Handler: TypeAlias = "Callable[[ImapState, Any], Awaitable[Answer | None]]"


class Spec(NamedTuple):
    """An entry of the command table."""

    run: Handler  # None as an answer: there is none (yet), or the session is over
    tell: Tell | Callable[[Any], Tell] = Tell.ALL


class ImapState(ABC):
    """The part of a session that commands see. One object a connection: attributes are few, and there is no dict."""

    __slots__ = (
        "_more",
        "closing",
        "compressed",
        "condstore",
        "current_tag",
        "farewell",
        "hub",
        "idle_tag",
        "idle_timeout_s",
        "login_failures",
        "mailbox",
        "opened_account",
        "qresync",
        "reader",
        "reserved_bytes",
        "rev2",
        "saved",
        "selected",
        "services",
        "told_keywords",
        "utf8",
        "wire",
    )

    def __init__(self, services: Services, hub: Hub, wire: Wire, reader: Reader) -> None:
        self.services = services
        self.hub = hub
        self.wire = wire
        self.reader = reader
        self.idle_timeout_s = 0.0
        self.mailbox: MailboxConfig | None = None
        self.opened_account: Account | None = None
        self.selected: Selected | None = None
        self.saved: Uids | None = None  # the result that `$` stands for (RFC 5182)
        self.told_keywords = 0  # how many of the account's keywords the client was told in FLAGS
        self.condstore = self.qresync = self.utf8 = self.rev2 = self.compressed = False
        self.login_failures = 0
        self.current_tag = ""  # of the command that runs
        self.idle_tag = ""  # of an IDLE that waits for DONE
        self.closing = False  # close after the tagged answer
        self.farewell = b""  # and write this behind it
        self.reserved_bytes = 0  # of messages accepted and not yet committed
        self._more: asyncio.Future[None] | None = None  # a command waits for the client's next line

    # --- where the session stands ---

    @property
    def account_address(self) -> str:
        """The account that is logged in; "" before login."""
        return "" if self.opened_account is None else self.opened_account.address

    def opened(self) -> Account:
        """The account; commands that need one are refused before login by the reader."""
        assert self.opened_account is not None
        return self.opened_account

    def folder_open(self) -> Selected:
        """The selected folder; commands that need one are refused elsewhere by the reader."""
        assert self.selected is not None
        return self.selected

    @property
    def style(self) -> news.Style:
        """How the client wants to be told of changes."""
        return news.Style(uid=self.qresync or self.rev2, modseq=self.condstore, vanished=self.qresync)

    # --- names and numbers ---

    async def folder(self, name: str, *, try_create: bool = False) -> FolderView:
        """The folder of a name, asking the store when this pod does not know it. Raises `Refused`.

        `try_create`: answer with TRYCREATE, as RFC 9051 §6.3.12 and §6.4.7 want it of APPEND, COPY and MOVE.
        """
        account = self.opened()
        name = canonical(name)
        found = account.view.folder(name)
        if found is None:
            found = (await account.refresh(0.0)).folder(name)
        if found is None:
            raise Refused(answers.TRY_CREATE if try_create else answers.NO_SUCH_FOLDER)
        return found

    def positions(self, numbers: SequenceSet, *, uid: bool) -> Positions:
        """The messages that a set of a command means, as positions. Raises `Refused` for a number beyond the folder's size."""
        selected = self.folder_open()
        if numbers.saved:
            return NO_POSITIONS if self.saved is None else selected.positions_of(self.saved)
        if uid:
            return numbers.rows_of_uids(selected.uids)
        try:
            return numbers.rows_of_sequence(selected.count)
        except OutOfRange:
            raise Refused(answers.NO_SUCH_MESSAGE) from None

    # --- writing ---

    def write(self, data: bytes) -> None:
        """Queue bytes for the client."""
        self.wire.write(data)

    async def write_all(self, chunks: Iterable[bytes]) -> None:
        """Write chunk after chunk at the speed at which the client reads."""
        wire = self.wire
        for chunk in chunks:
            wire.write(chunk)
            if wire.congested:
                await wire.drained()
            else:
                await next_turn()

    # --- news ---

    def pending(self, *, allow_expunge: bool, quiet: Quiet | None = None, also: Uids | None = None, uid: bool = False) -> Iterable[bytes]:
        """What is new in the selected folder, as lines to write, and the flags of `also`, new or not."""
        selected = self.selected
        if selected is None:
            return ()
        view = self.opened().view
        newer = view.folder_by_id(selected.folder_id)
        if newer is None:
            return ()  # the folder is deleted: the session says so at the command's end
        delta = selected.advance(newer, allow_expunge=allow_expunge, quiet=quiet, also=also)
        if not delta:
            return ()
        if self.saved is not None and len(delta.vanished):
            self.saved = np.setdiff1d(self.saved, delta.vanished, assume_unique=True)  # RFC 5182 §2.1: $ loses what is expunged
        style = self.style
        if uid and not style.uid:
            style = style._replace(uid=True)  # RFC 9051 §6.4.9: FETCH answers caused by a UID command carry the UID
        return (*self.keyword_news(view), *news.lines(delta, newer, view.keywords, style))

    async def tell(self, how: Tell, *, quiet: Quiet | None = None, also: Uids | None = None, uid: bool = False) -> None:
        """Tell the client what is new, as far as the command allows."""
        if how is not Tell.NOTHING and self.selected is not None:
            await self.write_all(self.pending(allow_expunge=how is Tell.ALL, quiet=quiet, also=also, uid=uid))

    def keyword_news(self, view: AccountView) -> tuple[bytes, ...]:
        """FLAGS and PERMANENTFLAGS when the account has keywords that the client has not been told of (RFC 9051 §7.3.5)."""
        if len(view.keywords) == self.told_keywords or self.selected is None:
            return ()
        self.told_keywords = len(view.keywords)
        return news.flag_lines(view.keywords, read_only=self.selected.read_only)

    def select(self, view: FolderView, *, read_only: bool) -> Selected:
        """Open a folder at `view`."""
        self.selected = Selected(view, read_only=read_only)
        self.saved = None
        self.set_reader_state()
        return self.selected

    def deselect(self) -> None:
        """Leave the folder, telling nothing."""
        self.selected = None
        self.saved = None
        self.set_reader_state()

    def enable(self, capability: str) -> bool:
        """Switch on what a client enables (RFC 5161); False for what can't be."""
        match capability:
            case "CONDSTORE":
                self.condstore = True
            case "QRESYNC":
                self.condstore = self.qresync = True  # RFC 7162 §3.2.3
            case "UTF8=ACCEPT":
                self.utf8 = True  # RFC 6855 §3
            case "IMAP4REV2":
                self.rev2 = True  # RFC 9051 §6.3.1
            case _:
                return False
        self.set_reader_state()
        return True

    def append_limit(self) -> int:
        """The largest message that APPEND takes, in bytes (RFC 7889): what the mailbox's domain takes from outside as well."""
        domain = self.services.directory.domain(self.account_address.rpartition("@")[2])
        return limits.APPEND_BYTES_MAX if domain is None else min(domain.max_message_bytes, limits.APPEND_BYTES_MAX)

    def quota_bytes(self) -> int:
        """What the mailbox may hold, by the configuration in force."""
        mailbox = self.services.directory.mailbox(self.account_address) or self.mailbox
        assert mailbox is not None
        return mailbox.quota_bytes

    def reserve(self, count: int) -> None:
        """Count message bytes that are accepted (negative: committed, or not coming) against the quota and the pod's memory."""
        if count:
            self.reserved_bytes += count
            if count > 0:
                self.hub.reserve(self.account_address, count)
            else:
                self.hub.release(self.account_address, -count)

    # --- talking within a command ---

    async def read_line(self, max_bytes: int) -> bytes | None:
        """The client's next line, for a SASL exchange; None when the client broke the rules and was told so."""
        self.reader.expect_line(max_bytes)
        while (event := self.reader.next_event()) is None:
            self._more = asyncio.get_running_loop().create_future()
            try:
                await self._more
            finally:
                self._more = None
        return event.data if isinstance(event, Line) else None

    # --- made by the session ---

    @abstractmethod
    def capabilities(self) -> list[str]:
        """What is announced now."""

    @abstractmethod
    def logged_in(self, mailbox: MailboxConfig, account: Account) -> None:
        """From here on the session belongs to `account`."""

    @abstractmethod
    def set_reader_state(self) -> None:
        """Tell the reader which commands are allowed now, and how names are spelled."""

    @abstractmethod
    async def begin_tls(self) -> Answer | None:
        """Answer STARTTLS, negotiate, forget what went before."""

    @abstractmethod
    def begin_compression(self) -> Answer | None:
        """Answer COMPRESS, and compress both ways from there."""

    @abstractmethod
    def close_for(self, reason: Reason) -> None:
        """End the session for `reason`, told in BYE: at once when it waits, else after the command that runs."""

    @abstractmethod
    def push_later(self) -> None:
        """Tell an idle session what is new at the speed at which its client reads."""

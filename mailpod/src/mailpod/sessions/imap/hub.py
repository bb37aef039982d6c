"""What the IMAP sessions of a pod share: who is there, who idles on which account, one pump and one refresh for all of them.

A commit marks an account dirty once; the pump then renders what is new once for all sessions that know the same and want it told in the
same way, and writes to a bounded number of sessions a loop turn. One task for the whole pod asks the store for accounts whose idlers
were not told anything for a minute (STORAGE.md, Committing 5). It ends when nobody idles.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import structlog

from mailpod.errors import MailError
from mailpod.limits import imap_session as limits
from mailpod.sessions.imap import answers, news
from mailpod.sessions.imap.state import ImapState
from mailpod.sessions.services import Services
from mailpod.store.facade import Account, FolderView

log = structlog.get_logger(__name__)


class Hub:
    """One per pod."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.receiving_bytes = 0  # of messages that sessions have accepted and not yet committed
        self._sessions: set[ImapState] = set()
        self._pumps: dict[Account, Pump] = {}  # by the object: an account that was closed and opened anew is another one
        self._reserved: dict[str, int] = {}
        self._refresher: asyncio.Task[None] | None = None

    # --- sessions ---

    def add(self, session: ImapState) -> None:
        """A session has begun."""
        self._sessions.add(session)

    def remove(self, session: ImapState) -> None:
        """A session's connection is gone."""
        self.quiet(session)
        self._sessions.discard(session)

    def sessions(self) -> tuple[ImapState, ...]:
        """All sessions of the pod; `account_address` tells whose."""
        return tuple(self._sessions)

    # --- quota ---

    def reserve(self, account: str, count: int) -> None:
        """Count bytes that are on their way into an account, so that sessions appending at once do not all pass the quota's check."""
        self._reserved[account] = self._reserved.get(account, 0) + count
        self.receiving_bytes += count

    def release(self, account: str, count: int) -> None:
        """They are committed, or will not be."""
        rest = self._reserved.get(account, 0) - count
        self.receiving_bytes -= count
        if rest > 0:
            self._reserved[account] = rest
        else:
            self._reserved.pop(account, None)

    def reserved(self, account: str) -> int:
        """Bytes on their way into `account` through this pod's IMAP sessions."""
        return self._reserved.get(account, 0)

    # --- idling ---

    def watch(self, session: ImapState) -> None:
        """From now on tell `session` at once what is new."""
        account = session.opened()
        pump = self._pumps.get(account)
        if pump is None:
            pump = self._pumps[account] = Pump(account, self.services.clock.monotonic())
        pump.add(session)
        pump.poke(session)  # what came since the session was last told
        if self._refresher is None:
            self._refresher = asyncio.get_running_loop().create_task(self._refresh())

    def quiet(self, session: ImapState) -> None:
        """Tell `session` nothing any more by itself."""
        account = session.opened_account
        if account is None or (pump := self._pumps.get(account)) is None:
            return
        pump.discard(session)
        if not pump.sessions:
            pump.close()
            del self._pumps[account]

    async def _refresh(self) -> None:
        try:
            while self._pumps:
                await self.services.clock.sleep(limits.REFRESH_TICK_S)
                now = self.services.clock.monotonic()
                due = [pump for pump in self._pumps.values() if now - pump.refreshed_at >= limits.REFRESH_IDLE_S]
                for start in range(0, len(due), limits.REFRESH_CONCURRENT_MAX):
                    await asyncio.gather(*(pump.refresh(now) for pump in due[start : start + limits.REFRESH_CONCURRENT_MAX]))
        finally:
            self._refresher = None


class _Step(NamedTuple):
    """From one view to another, told in one way."""

    older: int  # id() of the views: both are kept alive by `_Rendered` as long as it is looked up
    newer: int
    style: news.Style
    keywords: int
    read_only: bool


class _Rendered(NamedTuple):
    older: FolderView
    newer: FolderView
    data: bytes | None  # None: too much for one write; each session has it rendered, at its client's speed


class Pump:
    """One account's idle sessions."""

    __slots__ = ("_account", "_queue", "_rendered", "_scheduled", "_unregister", "refreshed_at", "sessions")

    def __init__(self, account: Account, now: float) -> None:
        self._account = account
        self.sessions: dict[ImapState, None] = {}
        self.refreshed_at = now
        self._queue: deque[ImapState] = deque()
        self._rendered: dict[_Step, _Rendered] = {}
        self._scheduled = False
        self._unregister: Callable[[], None] = account.on_change(self._changed)

    def add(self, session: ImapState) -> None:
        """Watch for `session`."""
        self.sessions[session] = None

    def discard(self, session: ImapState) -> None:
        """Watch for it no more."""
        self.sessions.pop(session, None)

    def poke(self, session: ImapState) -> None:
        """Look whether there is something to tell `session`."""
        self._queue.append(session)
        self._schedule()

    def close(self) -> None:
        """Nobody is left."""
        self._unregister()
        self._queue.clear()

    async def refresh(self, now: float) -> None:
        """Ask the store what other pods have done; what is new comes through `on_change`."""
        self.refreshed_at = now
        try:
            await self._account.refresh(limits.REFRESH_TICK_S)
        except MailError as error:
            log.info("imap-idle-refresh-failed", account=self._account.address, reason=error.reason.name)
            if error.reason.name == "account-closed":
                for session in tuple(self.sessions):
                    session.close_for(error.reason)

    def _changed(self) -> None:
        """A commit: everybody gets looked at once more."""
        self._queue = deque(self.sessions)
        self._schedule()

    def _schedule(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        for _ in range(min(limits.PUSH_SESSIONS_PER_TURN, len(self._queue))):
            session = self._queue.popleft()
            if session not in self.sessions:
                continue
            if session.wire.congested:
                session.push_later()
            else:
                self._push(session)
        if self._queue:
            self._schedule()
        else:
            self._rendered.clear()

    def _push(self, session: ImapState) -> None:
        """Tell one session what is new."""
        selected = session.selected
        if selected is None:
            return
        view = self._account.view
        newer = view.folder_by_id(selected.folder_id)
        if newer is None:
            session.close_for(answers.FOLDER_DELETED)
            return
        if not selected.aligned or session.saved is not None:
            for chunk in session.pending(allow_expunge=True):
                session.write(chunk)
            return
        older = selected.view
        step = _Step(id(older), id(newer), session.style, session.told_keywords, selected.read_only)
        found = self._rendered.get(step)
        if found is None:
            found = self._rendered[step] = self._render(session, older, newer)
        if found.data is None:
            session.push_later()
            return
        selected.jump(newer)
        session.told_keywords = len(view.keywords)
        if found.data:
            session.write(found.data)

    def _render(self, session: ImapState, older: FolderView, newer: FolderView) -> _Rendered:
        view = self._account.view
        assert session.selected is not None
        delta = session.selected.compare(newer)
        if len(delta.rows) + len(delta.expunged) > limits.PUSH_LINES_MAX:
            return _Rendered(older, newer, None)
        keywords = () if session.told_keywords == len(view.keywords) else news.flag_lines(view.keywords, session.selected.read_only)
        return _Rendered(older, newer, b"".join((*keywords, *news.lines(delta, newer, view.keywords, session.style))))

"""One pod's store: opens accounts, keeps them warm, accepts mail for several, listens to other pods."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary, ref

import structlog

from mailpod.errors import SHUTTING_DOWN, MailError, Refused
from mailpod.limits import store as limits
from mailpod.message import summarize as summarize_message
from mailpod.ports import Clock, Entropy, ObjectStore, Offload
from mailpod.store import requests
from mailpod.store.account import Account, Reader
from mailpod.store.account_machine import MACHINE
from mailpod.store.committer import Committer
from mailpod.store.erasing import Purge
from mailpod.store.forgetting import Forgetting
from mailpod.store.keys import account_name, address_of
from mailpod.store.log import Log
from mailpod.store.options import Environment, StoreOptions
from mailpod.store.prepared import Summarize
from mailpod.store.segments import Segments
from mailpod.store.shared import Shared
from mailpod.store.snapshot import Snapshots
from mailpod.store.state import AccountState
from mailpod.store.transit import Transit
from mailpod.store.types import TransitMessage
from mailpod.telemetry import ACCOUNTS_OPEN, QUARANTINED

_logger = structlog.get_logger(__name__)


def _nobody(_log: str, _seq: int) -> None:
    """No other pods."""


class Extra:
    """What an account's snapshots carry beside the state."""

    def __init__(self, log: Log[AccountState], segments: Segments) -> None:
        self._log = log
        self._segments = segments
        self.reader: ref[Reader] | None = None  # of the newest Account

    async def make(self) -> bytes:
        """The list of summary segments, brought up to date."""
        reader = self.reader() if self.reader is not None else None
        if reader is not None and not self._log.state.closed and self._segments.due():
            try:
                await reader.grow_segments()
            except MailError as error:  # derived: a snapshot without them serves as well
                _logger.info("store.segments.skipped", log=self._log.name, detail=error.detail)
        return self._segments.listing()


class AccountLog:
    """One address: its log, its committer, its snapshots. Lives as long as an `Account` of it, or as long as it is warm."""

    def __init__(self, shared: Shared, address: str) -> None:
        self.address = address
        self.log: Log[AccountState] = Log(shared.env, account_name(address), MACHINE)
        self.segments = Segments(self.log)
        self.extra = Extra(self.log, self.segments)
        self.snapshots = Snapshots(self.log, self.extra.make, self.segments.adopt)
        self.committer: Committer[AccountState] = Committer(self.log, self.snapshots.after_commit)


class MailStore:
    """See `facade.MailStore`. Nothing runs in the background before `start`."""

    def __init__(
        self,
        objects: ObjectStore,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        options: StoreOptions | None = None,
        on_commit: Callable[[str, int], None] = _nobody,
        summarize: Summarize = summarize_message,
    ) -> None:
        self.env = Environment(objects, clock, entropy, offload, options or StoreOptions(), on_commit)
        self.shared = Shared(self.env, summarize)
        self._warm: OrderedDict[str, Account] = OrderedDict()
        self._known: WeakValueDictionary[str, Account] = WeakValueDictionary()
        self._opening: dict[str, asyncio.Task[Account]] = {}
        self._closing = False
        self._cursor = ""
        self._maintained: dict[str, float] = {}  # address → monotonic time
        self._background: asyncio.Task[None] | None = None
        self.transit = Transit(self)

    def start(self) -> None:
        """Begin what runs in the background: adopting transit logs, forgetting idle accounts. `drain` ends it."""
        if self._background is None:
            self._background = self.env.spawn(self._run(), "store background")

    async def _run(self) -> None:
        while not self._closing:
            try:
                await self.transit.scan()
                await self._maintain()
            except MailError as error:
                _logger.info("store.background.skipped", reason=error.reason.name, detail=error.detail)
            self.cool()
            await self.env.clock.sleep(limits.TRANSIT_SCAN_S * (0.75 + 0.5 * self.env.entropy.uniform()))

    async def _maintain(self) -> None:
        """Look after one account that is due: forget what was expunged before the window, finish an interrupted purge.

        Any pod may at any time; that several look after the same account costs requests, nothing else.
        """
        address = await self._next_due()
        if address is None:
            return
        self._maintained[address] = self.env.clock.monotonic()
        try:
            parts = AccountLog(self.shared, address)
            await parts.snapshots.open()
            state = parts.log.state
            if state.seq and (state.closed or state.incarnation > 1):
                await Purge(parts).run()
            if state.closed:
                return
            if not state.reclaims or state.seq > state.reclaims[-1]:
                await Forgetting(await self.open(address)).run()
        except MailError as error:
            _logger.info("store.maintenance.failed", address=address, reason=error.reason.name, detail=error.detail)

    async def _next_due(self) -> str | None:
        """The next account in key order; each comes once a day at most, from a random one on."""
        keys = self.env.keys
        for _ in range(2):
            rows = await self.env.objects.list(keys.accounts(), start_after=self._cursor, limit=1)
            if rows:
                break
            self._cursor = ""
        else:
            return None
        name = keys.name_of(rows[0].key)
        if name is None:
            self._cursor = rows[0].key
            return None
        self._cursor = keys.after(name)
        address = address_of(name)
        last = self._maintained.get(address)
        now = self.env.clock.monotonic()
        if last is not None and now - last < limits.RECLAIM_EVERY_S:
            return None
        if len(self._maintained) >= limits.MAINTAINED_MAX:
            self._maintained.clear()
        return address

    async def accept(self, message: TransitMessage) -> str:
        """Durable once, then to each recipient exactly once."""
        self.check_open()
        return await self.transit.accept(message)

    def transit_idle(self) -> bool:
        """Whether every transit log that this pod holds is empty."""
        return self.transit.idle()

    async def drain(self) -> None:
        """Finish what is queued, work off transit, stop background work."""
        await self.transit.drain()
        self._closing = True
        if self._background is not None:
            self._background.cancel()
        for account in list(self._known.values()):  # those that nobody holds any more have nothing queued
            await account.parts.committer.wait_idle()
        for transit in list(self.transit.logs.values()):
            await transit.committer.wait_idle()
            transit.stop()
        tasks = [task for task in self.env.tasks if task is not asyncio.current_task()]
        if tasks:
            await asyncio.wait(tasks, timeout=limits.DRAIN_TRANSIT_S_MAX)

    async def open(self, address: str) -> Account:
        """The account, made with DEFAULT_FOLDERS when there is none, or when the last one was erased."""
        account = self._known.get(address)
        if account is not None and self._usable(account):
            self._keep_warm(account)
            return account
        self.check_open()
        self._check_quarantined(address)
        task = self._opening.get(address)
        if task is None:
            task = self._opening[address] = self.env.spawn(self._open(address), f"open {address}")
            task.add_done_callback(lambda _task: self._opening.pop(address, None))
        return await asyncio.shield(task)

    async def open_for_transit(self, address: str, incarnation: int) -> Account | None:
        """The account of that incarnation; None when it has ended. Never makes one: an ended account's mail has no one to go to."""
        account = self._known.get(address)
        if account is not None and self._usable(account) and account.incarnation == incarnation:
            return account
        self.check_open()
        self._check_quarantined(address)
        parts = AccountLog(self.shared, address)
        await parts.snapshots.open()
        if parts.log.state.closed or parts.log.state.incarnation != incarnation:
            return None
        account = self._known.get(address)  # somebody may have been quicker
        if account is not None and self._usable(account):
            return account
        return self._register(address, parts)

    def check_open(self) -> None:
        """Raises `Refused` when the store is shutting down."""
        if self._closing:
            raise Refused(SHUTTING_DOWN)

    def _usable(self, account: Account) -> bool:
        log = account.log
        if log.quarantine is not None:
            # Somebody may have mended it: look again, now and then.
            return self.env.clock.monotonic() - log.changed_at < limits.QUARANTINE_RETRY_S
        return not log.state.closed and log.state.incarnation == account.incarnation

    async def _open(self, address: str) -> Account:
        stale = self._known.get(address)
        if stale is not None and stale.log.quarantine is None:
            parts = stale.parts
        else:
            parts = AccountLog(self.shared, address)
            await parts.snapshots.open()
        if parts.log.state.closed:
            await parts.committer.submit(requests.Create())
        return self._register(address, parts)

    def _check_quarantined(self, address: str) -> None:
        """An account that does not verify is read anew now and then only: a flood of mail to it must not become a flood of requests."""
        found = self.env.quarantined.get(account_name(address))
        if found is not None and self.env.clock.monotonic() - found[0] < limits.QUARANTINE_RETRY_S:
            raise found[1]

    def _register(self, address: str, parts: AccountLog) -> Account:
        if self.env.quarantined.pop(parts.log.name, None) is not None:
            QUARANTINED.set(len(self.env.quarantined))
        account = Account(address, parts, self.shared)
        self._known[address] = account
        self._keep_warm(account)
        return account

    def _keep_warm(self, account: Account) -> None:
        """The most recently used ones stay open though no session holds them."""
        warm = self._warm
        warm[account.address] = account
        warm.move_to_end(account.address)
        if len(warm) > limits.ACCOUNTS_WARM_MAX:
            warm.popitem(last=False)
        ACCOUNTS_OPEN.set(len(self._known))

    def cool(self) -> None:
        """Let go of accounts that nobody used for a while, and of the oldest when all together take too much memory."""
        now = self.env.clock.monotonic()
        total = sum(account.memory_bytes() for account in self._warm.values())
        for address, account in list(self._warm.items()):
            idle = now - account.used_at > limits.ACCOUNT_IDLE_S
            if not idle and total <= limits.ACCOUNTS_WARM_BYTES_MAX:
                continue
            if account.parts.committer.idle:
                total -= account.memory_bytes()
                del self._warm[address]
        ACCOUNTS_OPEN.set(len(self._known))

    def heard(self, log: str, seq: int) -> None:
        """Another pod says that it committed `seq` to `log`: have a look, if the log is open here."""
        for account in list(self._known.values()):
            if account.log.name == log:
                if account.log.state.seq < seq and account.log.quarantine is None:
                    self.env.spawn(self._look(account), f"heard {log}")
                return

    async def _look(self, account: Account) -> None:
        try:
            await account.refresh()
        except MailError as error:
            _logger.info("store.heard.failed", log=account.log.name, reason=error.reason.name)

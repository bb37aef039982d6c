"""Mail for several: accepted once into a transit log that this pod holds, then applied to each account exactly once.

A dead pod's log is adopted and worked off. Exactly-once rests on what the accounts remember (`requests.Deliver`), never on the hold.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import structlog
import zstandard

from mailpod.errors import ACCOUNT_CLOSED, Corrupt, MailError, Refused, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.store import transit_state as ts
from mailpod.store.bodies import Bodies, BodyGoneError, Place
from mailpod.store.committer import Committer
from mailpod.store.entry import EMPTY_FRAME, make_frame
from mailpod.store.forgetting import reclaim_transit
from mailpod.store.keys import transit_name
from mailpod.store.log import Log
from mailpod.store.operations import BigBody
from mailpod.store.prepared import cut, joined, prepare, prepare_elsewhere
from mailpod.store.reasons import BIG_BELOW_WATERMARK, HOLD_LOST, LIMIT
from mailpod.store.requests import Deliver, NewPart, TransitKey
from mailpod.store.snapshot import Snapshots
from mailpod.store.transit_state import Item, Recipient, TransitState
from mailpod.store.types import TransitMessage
from mailpod.telemetry import TRANSIT_MESSAGES

if TYPE_CHECKING:
    from mailpod.store.mailstore import MailStore

_logger = structlog.get_logger(__name__)


class TransitLog:
    """One transit log as this pod knows it, held or watched."""

    def __init__(self, store: MailStore, number: int) -> None:
        self.number = number
        self.store = store
        env = store.env
        self.log: Log[TransitState] = Log(env, transit_name(number), ts.MACHINE)
        self.snapshots = Snapshots(self.log)
        self.committer: Committer[TransitState] = Committer(self.log, self.snapshots.after_commit)
        self._bodies = Bodies(env, store.shared.bodies, self.log.name, self.log.keys, 0)
        self.nonce = b""  # of our hold; b"" when we never took it
        self.opened = False
        self._opening = asyncio.Lock()
        self._worker: asyncio.Task[None] | None = None
        self._renewed_at = 0.0
        self._wake = asyncio.Event()

    async def open(self) -> None:
        """Bring it to its newest state."""
        async with self._opening:  # two at once would take the state of one back to the other's snapshot
            if not self.opened:
                await self.snapshots.open()
                self.opened = True
                return
        await self.log.refresh()

    @property
    def held(self) -> bool:
        """Whether the newest state that we know names our hold."""
        return self.nonce != b"" and self.log.state.hold.nonce == self.nonce

    async def take(self) -> bool:
        """Hold the log by a commit; False when somebody else took it meanwhile."""
        nonce = self.log.env.entropy.bytes(16)
        try:
            await self.committer.submit(ts.Take(self.log.env.options.pod, nonce, self.log.state.hold.nonce))
        except Refused as error:
            if error.reason is HOLD_LOST:
                return False
            raise
        self.nonce = nonce
        self._renewed_at = self.log.env.clock.monotonic()
        self.work_soon()
        return True

    async def renew(self) -> None:
        """Say that we are still at it, so that nobody adopts the log. Only needed while it is not empty."""
        if not self.held or not self.log.state.pending:
            return
        await self.committer.submit(ts.Take(self.log.env.options.pod, self.nonce, self.nonce))
        self._renewed_at = self.log.env.clock.monotonic()

    async def prove_hold(self) -> bool:
        """Ask the bucket whether the hold is still ours: true only by an answer younger than the call.

        To be awaited after an attempt to send something elsewhere began and before it becomes final: this alone keeps two pods
        from both sending it.
        """
        await self.log.refresh()
        return self.held

    async def let_go(self) -> None:
        """Hold no more, if nothing is pending."""
        if self.held and not self.log.state.pending:
            try:
                await self.committer.submit(ts.LetGo(self.nonce))
            except Refused as error:
                if error.reason is not HOLD_LOST:
                    raise
            self.nonce = b""

    # Accepting.

    async def accept(self, message: TransitMessage, recipients: tuple[Recipient, ...], raw: bytes) -> tuple[int, int]:
        """Durable in this log; (seq, index). Raises `Refused` with HOLD_LOST."""
        env = self.log.env
        while True:
            big, body = "", EMPTY_FRAME
            pieces: tuple[int, ...] = ()
            if len(raw) >= limits.BIG_BODY_BYTES_MIN:
                parts = await env.offload(_cut, raw)
                big = self.store.shared.ids.above(self.log.state.big_watermark)
                await env.objects.put(self.log.keys.big(0, big), parts)
                pieces = tuple(len(part) for part in parts)
            elif len(raw) >= limits.PREPARE_OFFLOAD_BYTES_MIN:
                body = await env.offload(_frame, raw)
            else:
                body = make_frame(raw)
            request = ts.Accept(self.nonce, message.reverse_path, recipients, body, len(raw), big, pieces)
            try:
                seq, index = await self.committer.submit(request)
            except Refused as error:
                if error.reason is BIG_BELOW_WATERMARK:
                    continue
                raise
            self._bodies.keep(_body_key(seq, index), raw)
            self.work_soon()
            return seq, index

    # Working off.

    def work_soon(self) -> None:
        """Work off what is pending, in the background."""
        self._wake.set()
        if self._worker is None or self._worker.done():
            self._worker = self.log.env.spawn(self._work(), f"transit {self.number:02x}")

    @property
    def working(self) -> bool:
        """Whether the worker runs."""
        return self._worker is not None and not self._worker.done()

    async def wait_worker(self) -> None:
        """Until the worker has nothing to do or cannot go on."""
        while self.working:
            assert self._worker is not None
            await asyncio.wait((self._worker,))

    def stop(self) -> None:
        """End the worker; another pod adopts what is left."""
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        """Deliver until nothing is pending or the hold is lost. What fails is tried again, later each time."""
        env = self.log.env
        attempt = 0
        while self.held and self.log.state.pending:
            self._wake.clear()
            before = len(self.log.state.pending)
            ok = await self._round()
            if not ok:
                attempt = attempt + 1 if len(self.log.state.pending) >= before else 1
                await self._pause(attempt)
            else:
                attempt = 0
            if env.clock.monotonic() - self._renewed_at > limits.HOLD_RENEW_S:
                await self._try(self.renew)
        if self.held and len(self.log.state.spent) >= limits.TRANSIT_RECLAIM_ENTRIES:
            await self._try(self.reclaim)

    async def _pause(self, attempt: int) -> None:
        """Wait before trying again what failed; new mail ends the wait, but never the first moment of it."""
        env = self.log.env
        await env.backoff(1, limits.TRANSIT_RETRY_S_MIN, limits.TRANSIT_RETRY_S_MAX)
        if attempt < 2 or self._wake.is_set():
            return
        sleeper = asyncio.ensure_future(
            env.backoff(attempt, limits.TRANSIT_RETRY_S_MIN, min(limits.TRANSIT_RETRY_S_MAX, limits.HOLD_RENEW_S))
        )
        waker = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((sleeper, waker), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
            waker.cancel()

    async def _try(self, action: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            await action()
        except MailError as error:
            _logger.info("transit.action.failed", log=self.log.name, reason=error.reason.name, detail=error.detail)

    async def _round(self) -> bool:
        """One attempt at everything pending; whether all of it went well."""
        gate = asyncio.Semaphore(limits.TRANSIT_DELIVERIES_IN_FLIGHT)
        pending = list(self.log.state.pending.items())

        async def one(key: tuple[int, int], item: Item) -> bool:
            async with gate:
                return await self._message(key, item) if self.held else False

        if len(pending) == 1:
            return await one(*pending[0])
        results = await asyncio.gather(*(one(key, item) for key, item in pending))
        return all(results)

    async def _message(self, key: tuple[int, int], item: Item) -> bool:
        """Deliver one message to all that do not have it; then, and only then, mark it done."""
        try:
            raw = await self.body(key, item)
        except (StoreUnavailable, Corrupt) as error:
            _logger.warning("transit.body.failed", log=self.log.name, seq=key[0], reason=error.reason.name, detail=error.detail)
            return False
        return await self.deliver_then_finish(key, item, raw)

    async def deliver_then_finish(self, key: tuple[int, int], item: Item, raw: bytes) -> bool:
        """Done comes after delivery: a kill between the two repeats the delivery, which the account notices; the reverse would lose it."""
        numbers = sorted(item.remaining)
        if len(numbers) == 1:
            results = [await self._recipient(key, item, numbers[0], raw)]
        else:
            results = await asyncio.gather(*(self._recipient(key, item, number, raw) for number in numbers))
        return await self.finish(key, [number for number, ok in zip(numbers, results, strict=True) if ok]) and all(results)

    async def finish(self, key: tuple[int, int], recipients: list[int]) -> bool:
        """Mark recipients done, after they have the message."""
        if not recipients:
            return True
        try:
            await self.committer.submit(ts.MarkDone(self.nonce, key[0], key[1], recipients))
        except MailError as error:
            _logger.info("transit.done.failed", log=self.log.name, seq=key[0], reason=error.reason.name)
            return False
        return True

    async def _recipient(self, key: tuple[int, int], item: Item, number: int, raw: bytes) -> bool:
        """Deliver to one recipient; whether it is done with (delivered, or never can be)."""
        recipient = item.recipients[number]
        try:
            return await self.deliver(key, recipient, number, raw)
        except Refused as error:
            _logger.warning("transit.refused", log=self.log.name, seq=key[0], recipient=number, reason=error.reason.name)
            return not _may_pass(error)
        except MailError as error:
            _logger.info("transit.retry", log=self.log.name, seq=key[0], recipient=number, reason=error.reason.name)
            return False

    async def deliver(self, key: tuple[int, int], recipient: Recipient, number: int, raw: bytes) -> bool:
        """Apply to the account, once. True also when it was applied before, or when the account has ended."""
        account = await self.store.open_for_transit(recipient.account, recipient.incarnation)
        if account is None:
            _logger.warning("transit.account.ended", log=self.log.name, seq=key[0], recipient=number)
            return True
        data = recipient.prefix + raw
        env = self.log.env
        shared = self.store.shared
        if len(data) < limits.PREPARE_OFFLOAD_BYTES_MIN:
            prepared = prepare(data, shared.summarize)
        else:
            prepared = await env.offload(prepare_elsewhere, data, shared.summarize)
        while True:
            ((ready, big),) = await shared.spread(account, [prepared])
            part = NewPart(ready, recipient.flags, None, big)
            request = Deliver(recipient.incarnation, recipient.folder, part, TransitKey(self.number, *key, number), self.watermark())
            try:
                outcome = await account.ask(request)
            except Refused as error:
                if error.reason is BIG_BELOW_WATERMARK:
                    continue
                raise
            if outcome is not None:
                account.keep_delivered(outcome, ready)
            return True

    def watermark(self) -> int:
        """A seq at or below which all is done, as read in the log: only then may an account forget what it applied."""
        return self.log.state.done_below()

    async def body(self, key: tuple[int, int], item: Item) -> bytes:
        """An accepted message's bytes, verified."""
        seq, index = key
        email = _body_key(seq, index)
        big = BigBody(email, item.big, item.size, item.pieces) if item.big else None
        place = Place(email, seq, item.off, item.length, index, item.size, big)
        try:
            return await self._bodies.read(place)
        except BodyGoneError:
            await self.log.refresh()  # somebody else worked it off and reclaimed it?
            if key not in self.log.state.pending:
                raise StoreUnavailable("done by somebody else") from None
        try:
            return await self._bodies.read(place)
        except BodyGoneError as gone:
            self.log.raise_quarantine(Corrupt(f"transit {self.number:02x}/{seq}: {gone}"))

    async def reclaim(self) -> None:
        """Drop the bodies of what is done."""
        await reclaim_transit(self)


def _may_pass(error: Refused) -> bool:
    """Whether a refused delivery may succeed later: only when something of ours is in the way, not the account's end."""
    return error.reason is not ACCOUNT_CLOSED


def _body_key(seq: int, index: int) -> int:
    return seq << 16 | index


def _cut(raw: bytes) -> tuple[bytes, ...]:
    return cut(raw, zstandard.ZstdCompressor(level=1))


def _frame(raw: bytes) -> Any:
    return make_frame(raw, zstandard.ZstdCompressor(level=1))


class Transit:
    """All transit logs as this pod knows them."""

    def __init__(self, store: MailStore) -> None:
        self._store = store
        self._env = store.env
        self.logs: dict[int, TransitLog] = {}
        self._current: TransitLog | None = None
        self._choosing: asyncio.Task[TransitLog] | None = None
        self._gone: set[str] = set()
        self._first: Final = zlib.crc32(self._env.options.pod.encode()) % limits.TRANSIT_LOGS

    def log(self, number: int) -> TransitLog:
        """One log; not opened yet."""
        found = self.logs.get(number)
        if found is None:
            found = self.logs[number] = TransitLog(self._store, number)
        return found

    async def accept(self, message: TransitMessage) -> str:
        """See `facade.MailStore.accept`."""
        if not message.recipients or len(message.recipients) > limits.TRANSIT_RECIPIENTS_MAX:
            raise Refused(LIMIT, f"{len(message.recipients)} recipients")
        if any(len(one.prefix) > limits.TRANSIT_PREFIX_BYTES_MAX for one in message.recipients):
            raise Refused(LIMIT, "prefix")
        raw = joined(message.raw)
        recipients = await self._resolve(message)
        while True:
            transit = await self.current()
            try:
                seq, index = await transit.accept(message, recipients, raw)
            except Refused as error:
                if error.reason is not HOLD_LOST:
                    raise
                continue  # somebody adopted it: nothing of the message was written; another log
            self._count()
            return f"{transit.number:02x}-{seq:x}-{index:x}"

    async def _resolve(self, message: TransitMessage) -> tuple[Recipient, ...]:
        """Recipients with the incarnation that the account has now: asked, for a stale one would lose the mail."""
        gate = asyncio.Semaphore(limits.TRANSIT_DELIVERIES_IN_FLIGHT)

        async def incarnation(address: str) -> int:
            async with gate:
                account = await self._store.open(address)
                await account.log.refresh()
                if account.log.state.closed or account.log.state.incarnation != account.incarnation:
                    account = await self._store.open(address)
                return account.incarnation

        addresses = list(dict.fromkeys(one.account for one in message.recipients))
        known = dict(zip(addresses, await asyncio.gather(*(incarnation(address) for address in addresses)), strict=True))
        return tuple(Recipient(one.account, known[one.account], one.folder, one.prefix, one.flags) for one in message.recipients)

    # Holding.

    async def current(self) -> TransitLog:
        """A log that this pod holds, taking one when it holds none."""
        if self._current is not None and self._current.held and self._current.log.quarantine is None:
            return self._current
        if self._choosing is None or self._choosing.done():
            self._choosing = self._env.spawn(self._choose(), "transit choose")
        return await asyncio.shield(self._choosing)

    async def _choose(self) -> TransitLog:
        """Nobody's log first, or one that we held before; then an empty one, whoever had it: holding is no right, only a custom."""
        failure: MailError | None = None
        for willing in (False, True):
            for step in range(limits.TRANSIT_LOGS):
                transit = self.log((self._first + step) % limits.TRANSIT_LOGS)
                try:
                    await transit.open()
                    if transit.held or (self._may_take(transit, willing) and await transit.take()):
                        self._current = transit
                        return transit
                except (Corrupt, StoreUnavailable) as error:
                    failure = error
                    if isinstance(error, StoreUnavailable):
                        raise
        raise StoreUnavailable("no transit log can be held") from failure

    def _may_take(self, transit: TransitLog, willing: bool) -> bool:
        hold = transit.log.state.hold
        if not hold.pod or hold.pod == self._env.options.pod or hold.pod in self._gone:
            return True
        return willing and not transit.log.state.pending

    # Adopting.

    def pod_gone(self, pod: str) -> None:
        """A pod is known to be gone for good: what it held may be adopted at once."""
        self._gone.add(pod)

    async def scan(self) -> None:
        """Look once at all logs that exist; adopt those that nobody works off, go on with our own."""
        for number in await self._existing():
            transit = self.log(number)
            try:
                await transit.open()
                await self._look_after(transit)
            except MailError as error:
                _logger.info("transit.scan.failed", log=transit.log.name, reason=error.reason.name, detail=error.detail)
        self._count()

    async def _look_after(self, transit: TransitLog) -> None:
        state = transit.log.state
        if not state.pending:
            return
        if transit.held:
            transit.work_soon()
        elif self.abandoned(transit) and await transit.take():
            _logger.info("transit.adopted", log=transit.log.name, messages=len(state.pending), held_by=state.hold.pod)

    def abandoned(self, transit: TransitLog) -> bool:
        """Whether nobody works the log off: no change for a while by our own clock, or its holder is known gone, or an earlier self."""
        hold = transit.log.state.hold
        if not hold.pod or hold.pod in self._gone or hold.pod == self._env.options.pod:
            return True
        return self._env.clock.monotonic() - transit.log.changed_at > limits.HOLD_TTL_S

    async def _existing(self) -> list[int]:
        """The logs that have ever been used: one LIST each, skipping from one to the next."""
        found: list[int] = []
        prefix = self._env.keys.transit()
        after = ""
        while True:
            rows = await self._env.objects.list(prefix, start_after=after, limit=1)
            if not rows:
                return found
            name = self._env.keys.name_of(rows[0].key)
            if name is None:
                after = rows[0].key
                continue
            after = self._env.keys.after(name)
            try:
                number = int(name.partition("/")[2], 16)
            except ValueError:
                continue
            if name == transit_name(number) and number < limits.TRANSIT_LOGS:
                found.append(number)

    # The rest.

    def _count(self) -> None:
        TRANSIT_MESSAGES.set(sum(len(one.log.state.pending) for one in self.logs.values() if one.held))

    def heard(self, name: str, seq: int) -> None:
        """Another pod committed to a transit log: nothing hangs on it, the scan looks soon enough."""

    def idle(self) -> bool:
        """Whether every log that this pod holds is empty."""
        return not any(one.held and one.log.state.pending for one in self.logs.values())

    async def drain(self) -> None:
        """Work off, let go."""
        deadline = self._env.clock.monotonic() + limits.DRAIN_TRANSIT_S_MAX
        while not self.idle() and self._env.clock.monotonic() < deadline:
            for one in list(self.logs.values()):
                if one.held and one.log.state.pending and not one.working:
                    one.work_soon()
            await self._env.clock.sleep(0.05)
        for one in list(self.logs.values()):  # a scan that still runs may open another one
            if one.held:
                try:
                    await one.let_go()
                except MailError as error:
                    _logger.info("transit.let-go.failed", log=one.log.name, reason=error.reason.name)

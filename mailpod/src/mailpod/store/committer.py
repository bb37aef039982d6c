"""Commits requests to a log: a queue, one PUT in flight, whatever queued meanwhile is the next batch.

The only question that ever matters is whose entry has the next number. Created, 412, 409, timeout, 5xx: the answer is read from the
bucket and compared by commit id (STORAGE.md, Committing).
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from mailpod.errors import CONDITIONAL_WRITES_REFUSED, Corrupt, InDoubt, MailError, ObjectNotFound, Refused, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.ports import PutOutcome
from mailpod.store import entry as entries
from mailpod.store.entry import Encoded, Header
from mailpod.store.log import Log
from mailpod.store.machine import S
from mailpod.store.reasons import QUEUE_FULL
from mailpod.telemetry import COMMIT_BATCH, COMMIT_SECONDS, COMMITS

_log = structlog.get_logger(__name__)
T = TypeVar("T")

_METERS: dict[str, _Meters] = {}


class _Meters:
    """Metric children of one kind of log, resolved once."""

    def __init__(self, kind: str) -> None:
        self.results = {result: COMMITS.labels(kind, result) for result in ("ok", "raced", "in-doubt")}
        self.batch = COMMIT_BATCH.labels(kind)
        self.seconds = COMMIT_SECONDS.labels(kind)


class Landed(enum.Enum):
    """What became of a PUT."""

    MINE = "mine"
    OTHERS = "others"
    ABSENT = "absent"


class _Waiting(NamedTuple):
    """A request in the queue."""

    request: Any
    future: asyncio.Future[Any]
    since: float


class Committer(Generic[S]):
    """The one that appends to a log, for all of this pod."""

    def __init__(self, log: Log[S], after_commit: Callable[[S], None] | None = None) -> None:
        self.log = log
        self._after_commit = after_commit
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._task: asyncio.Task[None] | None = None
        if log.machine.kind not in _METERS:
            _METERS[log.machine.kind] = _Meters(log.machine.kind)
        self._meters = _METERS[log.machine.kind]

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or in flight."""
        return self._task is None

    async def wait_idle(self) -> None:
        """Until nothing is queued or in flight."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    def submit(self, request: Any) -> asyncio.Future[Any]:
        """Queue a request; the future brings its outcome, `Refused`, `StoreUnavailable` or `InDoubt`.

        Cancelling the future drops the request when its evaluation has not begun, and nothing else.
        """
        self.log.check_quarantine()
        if len(self._queue) >= limits.QUEUE_REQUESTS_MAX or self._queued_bytes > limits.QUEUE_BYTES_MAX:
            raise StoreUnavailable("queue", QUEUE_FULL)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(request, future, self.log.env.clock.monotonic()))
        self._queued_bytes += request.weight
        if self._task is None:
            self._task = self.log.env.spawn(self._run(), f"commit {self.log.name}")
        return future

    async def _run(self) -> None:
        try:
            while self._queue:
                batch = self._take()
                if not batch:
                    continue
                try:
                    await self._commit(batch)
                except MailError as error:
                    _fail(batch, error)
                except BaseException:
                    _fail(batch, StoreUnavailable("the committer failed"))
                    raise
        finally:
            self._task = None
            if self._queue:  # only after a failure of ours: those who wait are told
                waiting, self._queued_bytes = list(self._queue), 0
                self._queue.clear()
                _fail(waiting, StoreUnavailable("the committer failed"))

    def _take(self) -> list[_Waiting]:
        """The next batch: what is queued, up to one entry's size."""
        batch: list[_Waiting] = []
        weight = messages = 0
        queue = self._queue
        while queue and len(batch) < limits.ENTRY_REQUESTS_MAX:
            request = queue[0].request
            weight += request.weight
            messages += request.messages
            if batch and (
                request.exclusive or batch[0].request.exclusive or weight > limits.ENTRY_BYTES_MAX or messages > limits.ENTRY_MESSAGES_MAX
            ):
                break
            waiting = queue.popleft()
            self._queued_bytes -= request.weight
            if not waiting.future.done():
                batch.append(waiting)
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        """Bring one batch to its end."""
        log, env = self.log, self.log.env
        began = env.clock.monotonic()
        proven = False
        while True:
            log.check_quarantine()
            head = log.state
            evaluated, outcomes = self._evaluate(batch)
            if not evaluated.builder.operations:
                # Nothing to write, or all refused: true only of the newest state.
                if proven:
                    _settle(batch, outcomes)
                    return
                await log.catch_up()
                proven = log.state is head
                if proven:
                    _settle(batch, outcomes)
                    return
                proven = True
                continue
            commit = env.entropy.bytes(16)
            seq = evaluated.builder.seq
            encoded, state = self._encode(evaluated, commit)
            asked = env.clock.monotonic()
            landed = await self._land(seq, commit, encoded, asked + limits.COMMIT_DOUBT_S)
            if landed is Landed.MINE:
                self._committed(state, seq, encoded, asked)
                self._meters.results["ok"].inc()
                self._meters.batch.observe(len(batch))
                self._meters.seconds.observe(env.clock.monotonic() - began)
                _settle(batch, outcomes)
                return
            self._meters.results["raced"].inc()
            proven = False
            batch = [waiting for waiting in batch if not waiting.future.done()]
            if not batch:
                return

    def _evaluate(self, batch: list[_Waiting]) -> tuple[Any, list[object]]:
        """The batch against the newest state: a builder with all operations, and an outcome (or error) for each request."""
        log = self.log
        failed: dict[int, BaseException] = {}
        while True:
            state = log.state
            evaluated = log.machine.batch(log.machine.begin(state, state.seq + 1), log.env.clock.now())
            outcomes: list[object] = []
            for number, waiting in enumerate(batch):
                if number in failed:
                    outcomes.append(failed[number])
                    continue
                before = len(evaluated.builder.operations)
                try:
                    outcomes.append(waiting.request.evaluate(evaluated))
                except Exception as error:  # noqa: BLE001 - one request's fault must not take the others with it
                    if not isinstance(error, Refused):
                        _log.error("store.evaluation.failed", log=log.name, request=type(waiting.request).__name__, exc_info=error)
                    if isinstance(error, Refused) and len(evaluated.builder.operations) == before:
                        outcomes.append(error)
                        continue
                    failed[number] = error
                    break
            else:
                return evaluated, outcomes

    def _encode(self, evaluated: Any, commit: bytes) -> tuple[Encoded, S]:
        """The entry to PUT and the state that it leads to."""
        log = self.log
        builder = evaluated.builder
        encoded = entries.encode(
            builder.seq,
            commit,
            log.state.commit,
            log.machine.encode(builder.operations),
            evaluated.summaries,
            evaluated.bodies,
        )
        bodies_at = encoded.head_bytes + sum(entries.FRAME_BYTES + len(frame.data) for frame in evaluated.summaries)
        return encoded, builder.finish(commit, encoded.operations_bytes, bodies_at)

    def _committed(self, state: S, seq: int, encoded: Encoded, asked: float) -> None:
        log = self.log
        if log.state.seq == seq - 1:  # else somebody has read it back already
            log.note_own(seq, encoded.size)
            log.publish(state)
            if self._after_commit is not None:
                self._after_commit(state)
        log.proven_fresh(asked)
        log.env.on_commit(log.name, seq)

    # Whose entry is it?

    async def _land(self, seq: int, commit: bytes, encoded: Encoded, deadline: float) -> Landed:
        """PUT until it is clear whose entry has the number. Raises `InDoubt`, or `StoreUnavailable` when surely nothing was written."""
        env = self.log.env
        key = self.log.keys.entry(seq)
        attempt = 0
        unclear = False  # whether any PUT of ours may have been applied, or may still be
        while True:
            attempt += 1
            try:
                if await env.objects.create(key, encoded.parts) is PutOutcome.CREATED:
                    return Landed.MINE
            except StoreUnavailable as error:
                if error.reason is CONDITIONAL_WRITES_REFUSED and not unclear:
                    raise
                unclear = True
                _log.warning("store.put.unclear", log=self.log.name, seq=seq, attempt=attempt, detail=error.detail)
            landed = await self._ask(seq, commit, deadline)
            if landed is not Landed.ABSENT:
                return landed
            if not self.put_again(seq):
                return Landed.ABSENT
            if env.clock.monotonic() >= deadline:
                self._doubt(seq)
            await env.backoff(attempt)

    async def _ask(self, seq: int, commit: bytes, deadline: float) -> Landed:
        """GET the number's entry and compare. Another's is applied on the way."""
        log, env = self.log, self.log.env
        attempt = 0
        while True:
            attempt += 1
            try:
                stored = await env.objects.get(log.keys.entry(seq), 0, limits.ENTRY_HEAD_READ_BYTES)
            except ObjectNotFound:
                return Landed.ABSENT
            except StoreUnavailable:
                if env.clock.monotonic() >= deadline:
                    self._doubt(seq)
                await env.backoff(attempt)
                continue
            try:
                header = entries.read_header(stored.data, seq)
            except Corrupt as error:
                if attempt < 3:
                    continue  # once more: it may have been torn on the way
                log.raise_quarantine(error)
            if self.is_mine(header, commit):
                return Landed.MINE
            await self._catch_up(seq, deadline)
            return Landed.OTHERS

    async def _catch_up(self, seq: int, deadline: float) -> None:
        """Another's entry is there: read it (and what followed)."""
        attempt = 0
        while self.log.state.seq < seq:
            attempt += 1
            try:
                await self.log.catch_up()
            except StoreUnavailable:
                if self.log.env.clock.monotonic() >= deadline:
                    raise  # nothing of this batch was written: its number is another's
                await self.log.env.backoff(attempt)

    def is_mine(self, header: Header, commit: bytes) -> bool:
        """Whether the entry found is the one that we PUT."""
        return header.commit == commit

    def put_again(self, seq: int) -> bool:
        """The number is absent: the identical bytes again. Never another evaluation, for the first PUT may still land."""
        return True

    def _doubt(self, seq: int) -> None:
        self._meters.results["in-doubt"].inc()
        _log.warning("store.commit.in-doubt", log=self.log.name, seq=seq)
        raise InDoubt(f"{self.log.name} entry {seq}")


def _settle(batch: list[_Waiting], outcomes: list[object]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.future.done():
            continue
        if isinstance(outcome, BaseException):
            waiting.future.set_exception(outcome)
        else:
            waiting.future.set_result(outcome)


def _fail(batch: list[_Waiting], error: MailError) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)

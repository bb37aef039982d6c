"""What a store is given: its way to the world and its settings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from mailpod.errors import MailError, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.ports import Clock, Entropy, Listed, ObjectStore, Offload, PutOutcome, Stored
from mailpod.store.keys import Keys

_log = structlog.get_logger(__name__)


class DiskCache(Protocol):
    """A disposable local cache. May lose anything at any time; what it returns is verified by the caller. Never raises."""

    async def get(self, key: str) -> bytes | None:
        """The value, if it is still there."""

    def put(self, key: str, value: bytes) -> None:
        """Keep the value, if there is room; returns at once."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Settings of one pod's store."""

    prefix: str = ""  # of all keys in the bucket
    retention_s: float = 14 * 86_400.0
    pod: str = "pod"  # this pod's name, unique in the fleet
    cache: DiskCache | None = None
    memory_cache_bytes: int = limits.BODY_CACHE_BYTES


@dataclass(slots=True)
class Environment:
    """Shared by all logs of one pod."""

    objects: ObjectStore
    clock: Clock
    entropy: Entropy
    offload: Offload
    options: StoreOptions
    on_commit: Callable[[str, int], None]
    keys: Keys = field(init=False)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    quarantined: dict[str, tuple[float, MailError]] = field(default_factory=dict)  # log name → since (monotonic), why

    def __post_init__(self) -> None:
        self.objects = Guarded(self.objects)
        self.keys = Keys(self.options.prefix)

    def spawn(self, coroutine: Coroutine[Any, Any, object], name: str) -> asyncio.Task[Any]:
        """Run in the background; a failure is logged, never lost."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, StoreUnavailable):
                _log.warning("store.background.unavailable", task=task.get_name(), detail=error.detail)
            else:
                _log.error("store.background.failed", task=task.get_name(), exc_info=error)

    async def backoff(self, attempt: int, smallest: float = limits.RETRY_DELAY_S_MIN, largest: float = limits.RETRY_DELAY_S_MAX) -> None:
        """Wait before attempt number `attempt` (1, 2, …), longer each time, never two pods alike."""
        delay = min(smallest * 2 ** min(attempt - 1, 16), largest)
        await self.clock.sleep(delay * (0.5 + 0.5 * self.entropy.uniform()))


class Guarded:
    """An `ObjectStore` whose every request ends: a reply that never comes is no clear answer either."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        """See `ports.ObjectStore`."""
        try:
            async with asyncio.timeout(limits.REQUEST_DEADLINE_S):
                return await self._inner.create(key, data)
        except TimeoutError:
            raise StoreUnavailable("create: no answer") from None

    async def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        """See `ports.ObjectStore`."""
        try:
            async with asyncio.timeout(limits.REQUEST_DEADLINE_S):
                await self._inner.put(key, data)
        except TimeoutError:
            raise StoreUnavailable("put: no answer") from None

    async def get(self, key: str, start: int = 0, length: int | None = None) -> Stored:
        """See `ports.ObjectStore`."""
        try:
            async with asyncio.timeout(limits.REQUEST_DEADLINE_S):
                return await self._inner.get(key, start, length)
        except TimeoutError:
            raise StoreUnavailable("get: no answer") from None

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[Listed]:
        """See `ports.ObjectStore`."""
        try:
            async with asyncio.timeout(limits.REQUEST_DEADLINE_S):
                return await self._inner.list(prefix, start_after=start_after, limit=limit)
        except TimeoutError:
            raise StoreUnavailable("list: no answer") from None

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ports.ObjectStore`."""
        try:
            async with asyncio.timeout(limits.REQUEST_DEADLINE_S):
                await self._inner.delete(keys)
        except TimeoutError:
            raise StoreUnavailable("delete: no answer") from None

"""The store of a pod: bucket, disk cache, and the wake-ups that go out to and come in from other pods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mailpod.adapters.diskcache import DiskCache
from mailpod.contract import StorageConfig
from mailpod.ports import Clock, Entropy, ObjectStore, Offload
from mailpod.store import MailStore, StoreOptions


class Storage:
    """Owns the store and its cache. Without `data` there is no cache on disk, only the one in memory."""

    def __init__(
        self,
        objects: ObjectStore,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        config: StorageConfig,
        data: Path | None,
        pod: str,
        on_commit: Callable[[str, int], None],
    ) -> None:
        """`pod`: this pod's name, unique in the fleet; `on_commit` is told of every commit made here."""
        self._cache: DiskCache | None = None
        if data is not None and config.cache_bytes:
            self._cache = DiskCache(data / "bodies", config.cache_bytes, clock, offload)
        options = StoreOptions(prefix=config.prefix, retention_s=float(config.retention_seconds), pod=pod, cache=self._cache)
        self.store = MailStore(objects, clock, entropy, offload, options, on_commit)

    async def start(self) -> None:
        """Take the cache over and begin background work."""
        if self._cache is not None:
            await self._cache.start()
        self.store.start()

    def committed_elsewhere(self, log: str, seq: int) -> None:
        """Another pod says that a log has grown to `seq`."""
        self.store.heard(log, seq)

    def transit_idle(self) -> bool:
        """Whether nothing accepted here waits to be applied."""
        return self.store.transit_idle()

    async def drain(self) -> None:
        """Everything accepted becomes durable where it belongs. Raises StoreUnavailable when the bucket does not let it."""
        await self.store.drain()

    async def close(self) -> None:
        """Stop writing the cache."""
        if self._cache is not None:
            await self._cache.close()

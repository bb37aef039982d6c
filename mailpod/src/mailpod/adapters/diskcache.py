"""The disposable cache on local disk (an emptyDir): bodies that were read or written a moment ago. Anything in it may vanish at any time.

A full or broken disk costs speed and nothing else: writing pauses, reading misses, mail goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict, deque
from pathlib import Path

import structlog

from mailpod.limits import diskcache as limits
from mailpod.ports import Clock, Offload
from mailpod.telemetry import CACHE, CACHE_BYTES

log = structlog.get_logger(__name__)

_TEMPORARY = ".new"


class DiskCache:
    """Least recently used files below `directory`, at most `limit_bytes` together. Implements `store.options.DiskCache`."""

    def __init__(self, directory: Path, limit_bytes: int, clock: Clock, offload: Offload) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._clock = clock
        self._offload = offload
        self._sizes: OrderedDict[str, int] = OrderedDict()  # file name to bytes taken, least recently used first
        self._used = 0
        self._pending: deque[tuple[str, bytes]] = deque()
        self._pending_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._paused_until = float("-inf")
        self._hits, self._misses = CACHE.labels("disk", "hit"), CACHE.labels("disk", "miss")
        self._gauge = CACHE_BYTES.labels("disk")

    async def start(self) -> None:
        """Take over what an earlier run of the pod left."""
        try:
            found = await self._offload(_scan, self._directory)
        except OSError as error:
            self._fail(error)
            return
        for name, size in found:
            self._sizes[name] = size
            self._used += size
        self._gauge.set(self._used)

    async def get(self, key: str) -> bytes | None:
        """The value, if it is still there. The caller verifies it."""
        name = _name(key)
        if name not in self._sizes:
            self._misses.inc()
            return None
        self._sizes.move_to_end(name)
        value = await self._offload(_read, self._path(name))
        if value is None:
            self._forget(name)
            self._misses.inc()
            return None
        self._hits.inc()
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep the value, if there is room; returns at once."""
        name = _name(key)
        if (
            name in self._sizes
            or len(value) > min(limits.VALUE_BYTES_MAX, self._limit // 4)
            or len(self._pending) >= limits.PENDING_VALUES_MAX
            or self._pending_bytes + len(value) > limits.PENDING_BYTES_MAX
            or self._clock.monotonic() < self._paused_until
        ):
            return
        self._pending.append((name, value))
        self._pending_bytes += len(value)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Stop writing; what is on disk stays."""
        self._pending.clear()
        self._pending_bytes = 0
        if self._writer is not None:
            await self._writer

    async def _write(self) -> None:
        try:
            while self._pending:
                batch = [self._pending.popleft() for _ in range(min(limits.BATCH_VALUES, len(self._pending)))]
                self._pending_bytes -= sum(len(value) for _, value in batch)
                victims = self._victims(sum(_taken(len(value)) for _, value in batch))
                try:
                    await self._offload(
                        _exchange, [self._path(name) for name in victims], [(self._path(name), value) for name, value in batch]
                    )
                except OSError as error:
                    self._fail(error)
                    continue
                for name, value in batch:
                    self._forget(name)
                    self._sizes[name] = _taken(len(value))
                    self._used += _taken(len(value))
                self._gauge.set(self._used)
        finally:
            self._writer = None

    def _victims(self, coming: int) -> list[str]:
        """Forget the least recently used ones, so that `coming` bytes fit; returns their names."""
        if self._used + coming <= self._limit:
            return []
        goal = max(0, int(self._limit * limits.EVICT_TO_SHARE) - coming)
        names = []
        while self._sizes and self._used > goal:
            name = next(iter(self._sizes))
            self._forget(name)
            names.append(name)
        return names

    def _forget(self, name: str) -> None:
        self._used -= self._sizes.pop(name, 0)

    def _fail(self, error: OSError) -> None:
        # Make room too: on a full disk a tenth of the cache may be all that others need.
        self._paused_until = self._clock.monotonic() + limits.FULL_PAUSE_S
        self._pending.clear()
        self._pending_bytes = 0
        log.warning("disk-cache-paused", why=error.strerror or type(error).__name__, seconds=limits.FULL_PAUSE_S)

    def _path(self, name: str) -> Path:
        return self._directory / name[:2] / name


def _name(key: str) -> str:
    """Keys hold addresses and slashes; file names must not."""
    return hashlib.blake2b(key.encode(), digest_size=20).hexdigest()


def _taken(size: int) -> int:
    return -(-size // limits.FILE_OVERHEAD_BYTES) * limits.FILE_OVERHEAD_BYTES + limits.FILE_OVERHEAD_BYTES


def _scan(directory: Path) -> list[tuple[str, int]]:
    """File names and bytes taken, oldest first; makes the folders, removes what was half written."""
    found: list[tuple[float, str, int]] = []
    for number in range(limits.FOLDERS):
        folder = directory / f"{number:02x}"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in os.scandir(folder):
            if entry.name.endswith(_TEMPORARY):
                Path(entry.path).unlink(missing_ok=True)
            elif entry.is_file(follow_symlinks=False):
                stat = entry.stat(follow_symlinks=False)
                found.append((stat.st_mtime, entry.name, _taken(stat.st_size)))
    return [(name, size) for _, name, size in sorted(found)]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _exchange(victims: list[Path], fresh: list[tuple[Path, bytes]]) -> None:
    """Remove, then write; a value appears whole or not at all. Not synced: after a crash the caller's check finds what is torn."""
    for path in victims:
        path.unlink(missing_ok=True)
    for path, value in fresh:
        temporary = path.with_name(path.name + _TEMPORARY)
        try:
            temporary.write_bytes(value)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

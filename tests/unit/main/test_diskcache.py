"""The disposable cache: bounded, and never in the way of mail."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from mailpod.adapters import diskcache
from mailpod.adapters.diskcache import DiskCache
from mailpod.adapters.system import SystemClock, ThreadOffload
from mailpod.limits import diskcache as limits


@pytest.fixture
def offload():
    made = ThreadOffload(1)
    yield made
    made.close()


async def made(folder: Path, offload: ThreadOffload, limit: int = 10**6) -> DiskCache:
    cache = DiskCache(folder, limit, SystemClock(), offload)
    await cache.start()
    return cache


async def settled(cache: DiskCache) -> None:
    async with asyncio.timeout(5):
        while cache._writer is not None:
            await asyncio.sleep(0.002)


async def test_keeps_and_gives_back(tmp_path, offload):
    """A second reader of a message does not go to the bucket; neither does one after a restart of the container."""
    cache = await made(tmp_path, offload)
    assert await cache.get("v1/a/alice@example.com/../x") is None
    cache.put("v1/a/alice@example.com/../x", b"body")
    await settled(cache)
    assert await cache.get("v1/a/alice@example.com/../x") == b"body"
    again = await made(tmp_path, offload)
    assert await again.get("v1/a/alice@example.com/../x") == b"body"
    assert [path.parent.parent for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path]


async def test_is_bounded_and_forgets_the_least_used(tmp_path, offload):
    """The emptyDir's size limit would evict the pod otherwise."""
    cache = await made(tmp_path, offload, 100 * limits.FILE_OVERHEAD_BYTES)
    for number in range(200):
        cache.put(f"k{number}", b"x" * 4096)
        await settled(cache)
        assert await cache.get("k0") is not None  # in use all the time
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(diskcache._taken(path.stat().st_size) for path in files) <= 100 * limits.FILE_OVERHEAD_BYTES
    assert await cache.get("k199") is not None
    assert await cache.get("k1") is None


async def test_vanished_and_half_written_files_are_misses(tmp_path, offload):
    """Whoever cleans the folder harms nobody."""
    cache = await made(tmp_path, offload)
    cache.put("k", b"v")
    await settled(cache)
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    file.unlink()
    assert await cache.get("k") is None
    file.with_name("torn.new").write_bytes(b"half")
    await made(tmp_path, offload)
    assert not list(tmp_path.rglob("*.new"))


@pytest.mark.case(33)
async def test_full_disk_pauses_and_recovers(tmp_path, offload, monkeypatch):
    """A full disk must not fail a delivery, and caching goes on when there is room again, without a restart."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = await made(tmp_path, offload)
    monkeypatch.setattr(diskcache, "_exchange", full)
    cache.put("k", b"v")
    await settled(cache)
    assert await cache.get("k") is None
    monkeypatch.undo()
    cache.put("k", b"v")
    assert cache._writer is None  # paused
    cache._paused_until = 0.0
    cache.put("k", b"v")
    await settled(cache)
    assert await cache.get("k") == b"v"


async def test_unwritable_folder_is_no_reason_not_to_start(tmp_path, offload):
    """A read-only disk costs speed only."""
    (tmp_path / "file").write_bytes(b"")
    cache = await made(tmp_path / "file" / "cache", offload)
    cache.put("k", b"v")
    assert await cache.get("k") is None


async def test_burst_is_bounded_in_memory(tmp_path, offload):
    """Values that wait for a slow disk must not fill memory."""
    cache = await made(tmp_path, offload, 10**12)
    for number in range(limits.PENDING_VALUES_MAX * 2):
        cache.put(f"k{number}", b"x")
    assert len(cache._pending) == limits.PENDING_VALUES_MAX
    await cache.close()
    cache.put("huge", b"x" * (limits.VALUE_BYTES_MAX + 1))
    assert cache._writer is None

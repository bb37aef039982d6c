"""Reading bodies: few large ranges, in order, verified; caches that may lie."""

# A folder that is not there fails the test by itself.
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mailpod.errors import StoreUnavailable
from mailpod.ports import Stored
from mailpod.store import StoreOptions, bodies
from mailpod.store.bodies import Place
from mailpod.store.lru import ByteLru
from mailpod.store.types import BlobColumn, NewMessage, TransitMessage, TransitRecipient
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.stores import make_store, message


class Disk:
    """`DiskCache` in memory, to be tampered with."""

    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.items.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.items[key] = value


async def filled() -> tuple[MemoryObjects, ManualClock, list[bytes]]:
    """Six entries of ten messages of some 20 KB each."""
    clock = ManualClock()
    objects = MemoryObjects(clock)
    account = await make_store(objects, clock).open("bob@example.com")
    rng = np.random.default_rng(5)
    raw = [message(f"m{number}", rng.bytes(10_000).hex()) for number in range(60)]
    for start in range(0, 60, 10):
        await account.append(account.view.folder("INBOX").id, [NewMessage(one) for one in raw[start : start + 10]])
    return objects, clock, raw


async def test_neighbours_are_read_together():
    """FETCH of everything costs one range an entry, not one a message."""
    objects, clock, raw = await filled()
    inbox = (await make_store(objects, clock).open("bob@example.com")).view.folder("INBOX")
    before = objects.requests["get"]
    assert [(row, one) async for row, one in inbox.read_many(np.arange(60))] == list(enumerate(raw))
    assert objects.requests["get"] - before == 6
    assert [row async for row, _ in inbox.read_many(np.array([40, 3, 4, 59]))] == [40, 3, 4, 59]


async def test_a_reader_that_stops_early_leaves_nothing_running():
    """A client that closes in the middle of a FETCH: no request goes on for it."""
    objects, clock, _ = await filled()
    inbox = (await make_store(objects, clock).open("bob@example.com")).view.folder("INBOX")
    reading = inbox.read_many(np.arange(60))
    assert (await reading.__anext__())[0] == 0
    await reading.aclose()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_store_errors_pass_through():
    """The session says NO [UNAVAILABLE]; the account is not blamed."""
    objects, clock, _ = await filled()
    account = await make_store(objects, clock).open("bob@example.com")

    async def get(key: str, start: int = 0, length: int | None = None) -> Stored:
        raise StoreUnavailable("503")

    objects.get = get  # type: ignore[method-assign]
    inbox = account.view.folder("INBOX")
    with pytest.raises(StoreUnavailable):
        await inbox.read(5)
    with pytest.raises(StoreUnavailable):
        [row async for row, _ in inbox.read_many(np.arange(60))]
    assert account.log.quarantine is None


@pytest.mark.parametrize("damage", ["none", "flip", "cut", "other", "gone"])
async def test_the_local_cache_may_lie(damage: str):
    """An emptyDir that rots or is mixed up costs a request, never a wrong byte."""
    objects, clock, raw = await filled()
    disk = Disk()
    first = (await make_store(objects, clock, options=StoreOptions(cache=disk)).open("bob@example.com")).view.folder("INBOX")
    assert [one async for _, one in first.read_many(np.arange(60))] == raw
    assert len(disk.items) == 60
    keys = list(disk.items)
    for number, key in enumerate(keys):
        value = disk.items[key]
        if damage == "flip":
            disk.items[key] = value[:50] + bytes([value[50] ^ 1]) + value[51:]
        elif damage == "cut":
            disk.items[key] = value[:-1]
        elif damage == "other":
            disk.items[key] = b"\0" * len(disk.items[keys[number - 1]])
    if damage == "gone":
        disk.items.clear()
    store = make_store(objects, clock, options=StoreOptions(cache=disk))
    again = (await store.open("bob@example.com")).view.folder("INBOX")
    before = objects.requests["get"]
    assert await again.read(7) == raw[7]
    assert objects.requests["get"] - before == (0 if damage == "none" else 1)


async def test_summary_columns_follow_the_folder():
    """SEARCH SUBJECT after new mail and expunges: the column is extended, not read again, and lines up with the rows."""
    objects, clock, _ = await filled()
    account = await make_store(objects, clock).open("bob@example.com")
    inbox = account.view.folder("INBOX")

    def values(column: BlobColumn) -> list[bytes]:
        blob, offsets = column
        return [blob[offsets[row] : offsets[row + 1]] for row in range(len(offsets) - 1)]

    assert values(await inbox.summary_column("subject")) == [b"m%d" % number for number in range(60)]
    await account.append(inbox.id, [NewMessage(message("ÄÖ New"))])
    before = objects.requests["get"]
    assert values(await account.view.folder("INBOX").summary_column("subject"))[-1] == "äö new".encode()
    await account.expunge(inbox.id, np.arange(2, 60, dtype=np.uint32), deleted_only=False)
    after = account.view.folder("INBOX")
    assert values(await after.summary_column("subject")) == [b"m0", b"m59", "äö new".encode()]
    assert objects.requests["get"] == before
    assert values(await after.summary_column("envelope"))[0].startswith(b"(")


def test_planning_joins_only_neighbours():
    """Ranges are bounded, in one entry, ascending; a body of its own stands alone."""
    places = [Place(number, 5, 100 + number * 300_000, 300_000, number, 300_000, None) for number in range(10)]
    plan = bodies._plan(places)
    assert [len(step.places) for step in plan] == [3, 3, 3, 1]
    assert all(step.bytes <= 1024 * 1024 for step in plan)
    assert [len(step.places) for step in bodies._plan(places[::-1])] == [1] * 10
    other = [place._replace(seq=6) for place in places[3:4]]
    assert [len(step.places) for step in bodies._plan([*places[:2], *other, places[2]])] == [2, 1, 1]


def test_lru_is_bounded():
    """Memory stays where the limit is, whatever is read."""
    cache: ByteLru[int, bytes] = ByteLru(1000, len)
    for number in range(100):
        cache.put(number, bytes(100))
    cache.put(5, bytes(900))
    assert cache.bytes <= 1000
    assert cache.get(99) is not None
    assert cache.get(3) is None
    assert cache.get(5) is None
    cache.drop(99)
    assert cache.get(99) is None


async def test_background_work_begins_and_ends():
    """`start` adopts what others left and forgets in the background; `drain` leaves nothing running."""
    clock = ManualClock()
    objects = MemoryObjects(clock)
    dead = make_store(objects, clock, options=StoreOptions(pod="dead"))
    await dead.accept(TransitMessage(message("x"), "", (TransitRecipient("bob@example.com", "INBOX", b""),)))
    for log in dead.transit.logs.values():
        log.stop()
    store = make_store(objects, clock, options=StoreOptions(pod="alive"))
    store.start()
    for _ in range(300):
        await asyncio.sleep(0)
    await store.drain()
    assert len(asyncio.all_tasks()) == 1
    inbox = (await make_store(objects, clock).open("bob@example.com")).view.folder("INBOX")
    assert inbox.count == 1


async def test_idle_accounts_are_let_go():
    """Memory for accounts that nobody uses comes back; one that a session holds stays the same object."""
    clock = ManualClock()
    store = make_store(MemoryObjects(clock), clock)
    held = await store.open("held@example.com")
    await store.open("idle@example.com")
    await asyncio.sleep(0)  # the task that opened it ends
    clock.advance(3600)
    store.cool()
    assert not store._warm
    assert await store.open("held@example.com") is held
    assert set(store._known) == {"held@example.com"}

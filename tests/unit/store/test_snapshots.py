"""Snapshots are derived: a bad one is passed over; an entry that does not verify quarantines."""

# A folder that is not there fails the test by itself.
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from mailpod.errors import Corrupt
from mailpod.limits import store as limits
from mailpod.ports import Listed
from mailpod.store import StoreOptions, account_snapshot, snapshot
from mailpod.store.account import Account
from mailpod.store.mailstore import AccountLog
from mailpod.store.types import NewMessage
from tests.support.clocks import ManualClock
from tests.support.memory_objects import Held, MemoryObjects
from tests.support.stores import make_store, message

DAY = 86_400.0


async def filled(count: int = 40) -> tuple[Account, MemoryObjects, ManualClock]:
    clock = ManualClock()
    objects = MemoryObjects(clock)
    store = make_store(objects, clock)
    account = await store.open("bob@example.com")
    inbox = account.view.folder("INBOX").id
    for number in range(count):
        await account.append(inbox, [NewMessage(message(str(number)))])
        clock.advance(60)
    await store.drain()
    return account, objects, clock


async def opened(objects: MemoryObjects, clock: ManualClock) -> Account:
    return await make_store(objects, clock).open("bob@example.com")


def tamper(objects: MemoryObjects, key: str, data: bytes) -> None:
    objects.objects[key] = Held(data, objects.objects[key].last_modified)


async def test_cold_open_is_few_requests():
    """A pod that takes over opens a mailbox in three round trips plus the tail, however many entries there were."""
    account, objects, clock = await filled(200)
    before = objects.requests.copy()
    again = await opened(objects, clock)
    spent = objects.requests - before
    assert account_snapshot.same(again.log.state, account.log.state)
    assert spent["list"] == 1
    assert spent["get"] < 2 + limits.SNAPSHOT_ENTRIES_MAX
    assert again.log.time == (await account.log.settle_time())[1]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "lie"])
async def test_bad_snapshots_are_passed_over(damage: str):
    """Torn, rotten or lying snapshots: the next older one, in the end entry 1, and never a quarantine."""
    account, objects, clock = await filled()
    for key in objects.keys("/snap/"):
        data = objects.objects[key].data
        if damage == "flip":
            place = random.Random(key).randrange(len(data))
            data = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
        elif damage == "cut":
            data = data[: len(data) // 2]
        elif damage == "empty":
            data = b""
        else:  # a snapshot of another history: right in itself, but its own entry has another commit id
            seq = account.log.keys.snapshot_seq(key)
            data = b"".join(snapshot.encode(seq, b"other commit id!", 0.0, account_snapshot.dump(account.log.state)))
        tamper(objects, key, data)
        again = await opened(objects, clock)
        assert account_snapshot.same(again.log.state, account.log.state)


async def test_a_snapshot_beyond_the_head_is_passed_over():
    """It would fake a gap, and the next commits would land behind it, unseen."""
    account, objects, clock = await filled()
    beyond = account.view.seq + 7
    data = b"".join(snapshot.encode(beyond, account.log.state.commit, 0.0, account_snapshot.dump(account.log.state)))
    await objects.put(account.log.keys.snapshot(beyond), data)
    again = await opened(objects, clock)
    assert again.view.seq == account.view.seq


async def test_every_flipped_bit_of_a_snapshot_is_noticed():
    """Invariant 14 for derived objects."""
    account, objects, _ = await filled(3)
    data = bytearray(b"".join(snapshot.encode(3, b"c" * 16, 5.0, account_snapshot.dump(account.log.state), b"extra")))
    key = account.log.keys.snapshot(3)
    reader = account.parts.snapshots
    await objects.put(key, bytes(data))
    assert (await reader.read(3)).extra == b"extra"
    rng = random.Random(1)
    for bit in sorted(rng.sample(range(len(data) * 8), 600)):
        data[bit >> 3] ^= 1 << (bit & 7)
        await objects.put(key, bytes(data))
        with pytest.raises(Corrupt):
            await reader.read(3)
        data[bit >> 3] ^= 1 << (bit & 7)


def test_which_snapshots_are_kept():
    """Any moment of the window can be restored quickly, and snapshot bytes do not grow for ever."""
    clock = ManualClock()
    store = make_store(options=StoreOptions(retention_s=14 * DAY), clock=clock)
    snapshots = AccountLog(store.shared, "bob@example.com").snapshots
    rows = [Listed(f"{number:04}", 1, 1e9 - number * DAY / 10) for number in range(300)]  # newest first, ten a day, for 30 days
    doomed = {row.key for row in snapshots.superfluous(rows)}
    kept = [row for row in rows if row.key not in doomed]
    assert [row.key for row in kept[:2]] == ["0000", "0001"]
    assert 15 <= len(kept) <= 18
    days = [(1e9 - row.last_modified) / DAY for row in kept[2:]]
    assert all(later - earlier <= 1.1 for earlier, later in itertools.pairwise(days))
    assert 14 < days[-1] < 15.2  # one before the window, from which its first moment is replayed


@pytest.mark.parametrize("what", ["flip", "cut", "gap", "chain"])
async def test_bad_entries_quarantine(what: str):
    """Mail is never skipped: the account answers 4xx and NO until somebody looks, and the other accounts go on."""
    account, objects, clock = await filled(10)
    for key in objects.keys("/snap/"):
        await objects.delete([key])
    key = account.log.keys.entry(5)
    data = objects.objects[key].data
    if what == "flip":
        tamper(objects, key, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif what == "cut":
        tamper(objects, key, data[:60])
    elif what == "gap":
        await objects.delete([account.log.keys.entry(3)])
    else:
        other = await make_store(objects, clock).open("eve@example.com")
        for number in range(6):
            await other.append(other.view.folder("INBOX").id, [NewMessage(message(str(number)))])
        tamper(objects, key, objects.objects[other.log.keys.entry(5)].data)
    store = make_store(objects, clock)
    with pytest.raises(Corrupt):
        await store.open("bob@example.com")
    assert (await store.open("carol@example.com")).view.folder("INBOX").count == 0


async def test_summaries_survive_the_loss_of_segments_and_frames():
    """Derived: from the entry's head, in the end from the body."""
    account, objects, clock = await filled(5)
    again = await opened(objects, clock)
    inbox = again.view.folder("INBOX")
    key = again.log.keys.entry(3)
    data = bytearray(objects.objects[key].data)
    entry = await again.log.read_entry(3)
    data[entry.header.head_bytes + 20] ^= 1  # inside the summary's frame
    tamper(objects, key, bytes(data))
    assert [one.subject for one in await inbox.summaries(np.arange(5))] == list("01234")
    assert account.view.seq == again.view.seq


async def test_summaries_of_a_large_folder_are_few_requests(monkeypatch: pytest.MonkeyPatch):
    """A cold pod lists a folder from segments: not one request a message. They are joined as they grow, and may vanish."""
    monkeypatch.setattr(limits, "SEGMENT_ROWS_MIN", 20)
    clock = ManualClock()
    objects = MemoryObjects(clock)
    account = await make_store(objects, clock).open("bob@example.com")
    inbox = account.view.folder("INBOX").id
    for number in range(600):
        await account.append(inbox, [NewMessage(message(f"m{number}"))])
        if number % 30 == 29:
            await account.parts.snapshots.write()
    assert len(account.parts.segments.known) <= 5
    again = await opened(objects, clock)
    before = objects.requests["get"]
    found = await again.view.folder("INBOX").summaries(np.arange(600))
    assert [one.subject for one in found] == [f"m{number}" for number in range(600)]
    assert objects.requests["get"] - before <= 6
    await account.expunge(inbox, np.arange(1, 300, dtype=np.uint32), deleted_only=False)
    living = np.arange(300, 601, dtype=np.uint32)
    await account.parts.segments.tidy(living)
    assert sum(segment.rows for segment in account.parts.segments.known) == 301
    await objects.delete(objects.keys("/sum/"))
    third = await opened(objects, clock)
    assert len(await third.view.folder("INBOX").summaries(np.arange(301))) == 301


async def test_a_quarantined_account_is_not_read_over_and_over():
    """A flood of mail to a mailbox that does not verify costs no requests; once mended, it opens again."""
    account, objects, clock = await filled(3)
    key = account.log.keys.entry(2)
    held = objects.objects[key]
    tamper(objects, key, b"rotten")
    store = make_store(objects, clock)
    with pytest.raises(Corrupt):
        await store.open("bob@example.com")
    before = objects.requests.copy()
    for _ in range(20):
        with pytest.raises(Corrupt):
            await store.open("bob@example.com")
    assert objects.requests == before
    objects.objects[key] = held
    clock.advance(limits.QUARANTINE_RETRY_S + 1)
    assert (await store.open("bob@example.com")).view.folder("INBOX").count == 3
    assert not store.env.quarantined

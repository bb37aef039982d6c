"""Forgetting and the past: reclaim, relocate, restore, erase. What may still be wanted is never taken."""

# A folder that is not there fails the test by itself.
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mailpod.errors import Corrupt, Refused
from mailpod.limits import store as limits
from mailpod.store import MailStore, StoreOptions, account_snapshot, columns, entry, erasing, snapshot
from mailpod.store import operations as ops
from mailpod.store.account import Account
from mailpod.store.account_machine import MACHINE
from mailpod.store.forgetting import Forgetting
from mailpod.store.history import Replay
from mailpod.store.restore import restore
from mailpod.store.state import AccountState, TransitRecord
from mailpod.store.types import NewMessage
from mailpod.store.verify import verify
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.stores import make_store, message

DAY = 86_400.0


class World:
    """A bucket, a clock, and pods."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.objects = MemoryObjects(self.clock)

    def pod(self) -> MailStore:
        return make_store(self.objects, self.clock, options=StoreOptions(retention_s=14 * DAY))

    async def account(self) -> tuple[Account, int]:
        account = await self.pod().open("bob@example.com")
        return account, account.view.folder("INBOX").id

    def size(self, account: Account, seq: int) -> int:
        return len(self.objects.objects[account.log.keys.entry(seq)].data)


@pytest.fixture
def world() -> World:
    return World()


def uids(*numbers: int) -> columns.Fixed:
    return np.array(numbers, dtype=np.uint32)


async def readable(account: Account) -> list[str]:
    """Subjects of everything in INBOX, each body read and verified."""
    folder = account.view.folder("INBOX")
    bodies = [raw async for _, raw in folder.read_many(np.arange(folder.count))]
    assert len(bodies) == folder.count
    return [raw.split(b"Subject: ")[1].split(b"\r\n")[0].decode() for raw in bodies]


async def same_as_replay(account: Account) -> None:
    line: Replay[AccountState] = Replay(account.log, AccountState(), 0.0)
    async for one in line.entries():
        line.step(one)
    assert account_snapshot.same(line.state, account.log.state)
    assert not (await verify(account.parts)).findings


async def test_expunged_stays_for_the_window_and_goes_after_it(world: World):
    """Fourteen days later the bodies are gone from the bucket, the living ones and the history are not."""
    account, inbox = await world.account()
    for number in range(6):
        await account.append(inbox, [NewMessage(message(f"m{number}"))])
        world.clock.advance(60)
    await account.expunge(inbox, uids(2, 4), deleted_only=False)
    world.clock.advance(13 * DAY)
    await account.append(inbox, [NewMessage(message("later"))])
    await Forgetting(account).run()
    full = world.size(account, 3)
    assert full > 300
    world.clock.advance(2 * DAY)
    listed = await Forgetting(account).run()
    assert listed is not None
    assert world.size(account, 3) < full
    assert world.size(account, 5) < full
    assert await readable(account) == ["m0", "m2", "m4", "m5", "later"]
    assert await readable(await world.pod().open("bob@example.com")) == ["m0", "m2", "m4", "m5", "later"]
    await same_as_replay(account)
    assert await Forgetting(account).run() is None  # nothing more to do: no commit


async def test_an_old_view_reads_gone_not_corrupt(world: World):
    """A POP3 session that has been open for weeks is told that the message is gone; nobody is quarantined."""
    account, inbox = await world.account()
    await account.append(inbox, [NewMessage(message("old"))])
    await account.append(inbox, [NewMessage(message("kept"))])
    other = await world.pod().open("bob@example.com")
    view = other.view.folder("INBOX")
    await account.expunge(inbox, uids(1), deleted_only=False)
    world.clock.advance(15 * DAY)
    await account.append(inbox, [NewMessage(message("later"))])
    await Forgetting(account).run()
    with pytest.raises(Refused, match="expunged"):
        await view.read(0)
    assert [row async for row, _ in view.read_many(np.arange(2))] == [1]
    assert other.log.quarantine is None


async def test_a_rotten_body_quarantines_the_account(world: World):
    """A flipped bit in a living body: NO to readers, never the wrong bytes, never skipped silently."""
    account, inbox = await world.account()
    await account.append(inbox, [NewMessage(message("x", "y" * 5000))])
    key = account.log.keys.entry(2)
    held = world.objects.objects[key]
    world.objects.objects[key] = held._replace(data=held.data[:-30] + bytes([held.data[-30] ^ 1]) + held.data[-29:])
    other = await world.pod().open("bob@example.com")
    with pytest.raises(Corrupt):
        await other.view.folder("INBOX").read(0)
    with pytest.raises(Corrupt):
        await other.append(inbox, [NewMessage(message("more"))])
    report = await verify(other.parts)
    assert report.findings[0].where == key
    assert report.findings[0].loses_mail


async def test_relocation_frees_mostly_dead_entries(world: World):
    """One living message in a batch of ten must not keep the other nine for ever."""
    account, inbox = await world.account()
    await account.append(inbox, [NewMessage(message(f"m{number}", f"{number}" * 3000)) for number in range(10)])
    archive = account.view.folder("Archive").id
    await account.copy(inbox, uids(4), archive)
    await account.expunge(inbox, uids(*range(1, 10)), deleted_only=False)
    before = world.size(account, 2)
    world.clock.advance(15 * DAY)
    await account.append(inbox, [NewMessage(message("later"))])
    await Forgetting(account).run()
    assert world.size(account, 2) == before  # still in the window of the state before the move
    assert await readable(account) == ["m9", "later"]
    world.clock.advance(15 * DAY)
    await account.append(inbox, [NewMessage(message("much later"))])
    await Forgetting(account).run()
    assert world.size(account, 2) < 1000
    for pod in (account, await world.pod().open("bob@example.com")):
        assert await readable(pod) == ["m9", "later", "much later"]
        assert b"3333" in await pod.view.folder("Archive").read(0)
        subjects = await pod.view.folder("Archive").summaries(np.array([0]))
        assert subjects[0].subject == "m3"
    await same_as_replay(account)


async def test_a_wrong_snapshot_destroys_nothing(world: World):
    """The second replay: a pod that was misled by a snapshot (right in form, wrong in content) lists nothing."""
    account, inbox = await world.account()
    for number in range(4):
        await account.append(inbox, [NewMessage(message(f"m{number}"))])
    await account.append(inbox, [NewMessage(message("x"))])
    state = account.log.state
    builder = account.log.machine.begin(state, state.seq + 1)
    builder.apply(ops.Removed(inbox, b"\x00\x01\x00\x00\x00"))
    wrong = builder.finish(state.commit, 0)
    wrong.seq = state.seq
    data = b"".join(snapshot.encode(state.seq, state.commit, world.clock.now(), account_snapshot.dump(wrong)))
    await world.objects.put(account.log.keys.snapshot(state.seq), data)
    misled = await world.pod().open("bob@example.com")
    assert misled.view.folder("INBOX").count == 4
    world.clock.advance(30 * DAY)
    with pytest.raises(Corrupt):
        await Forgetting(misled).run()
    assert all(world.size(account, seq) > 300 for seq in range(2, 6))


async def test_clock_that_is_ahead_forgets_nothing_too_early(world: World):
    """The cut is by the earlier of the store's clock and ours."""
    account, inbox = await world.account()
    await account.append(inbox, [NewMessage(message("x"))])
    await account.append(inbox, [NewMessage(message("y"))])
    await account.expunge(inbox, uids(1), deleted_only=False)

    ahead = ManualClock(world.clock.now() + 400 * DAY)
    pod = make_store(world.objects, ahead, options=StoreOptions(retention_s=14 * DAY))
    assert await Forgetting(await pod.open("bob@example.com")).run() is None
    assert world.size(account, 2) > 300


async def test_landing_time_survives_emptying(world: World):
    """Overwriting changes Last-Modified: without the time in the header, the past would move to the day of the reclaim."""
    account, inbox = await world.account()
    await account.append(inbox, [NewMessage(message("x"))])
    landed = world.objects.objects[account.log.keys.entry(2)].last_modified
    await account.expunge(inbox, uids(1), deleted_only=False)
    world.clock.advance(20 * DAY)
    await account.append(inbox, [NewMessage(message("y"))])
    await Forgetting(account).run()
    found = await account.log.read_entry(2)
    assert found is not None
    assert found.header.flags & entry.EMPTIED
    assert found.landing == landed != world.objects.objects[account.log.keys.entry(2)].last_modified


async def test_any_moment_of_the_window(world: World):
    """Restoring to a moment gives exactly what a reader saw then (invariant 15)."""
    account, inbox = await world.account()
    seen: list[tuple[float, AccountState]] = []
    for number in range(60):
        await account.append(inbox, [NewMessage(message(f"m{number}"), ("\\Seen", f"k{number % 5}"))])
        if number % 7 == 3:
            await account.expunge(inbox, uids(number - 1), deleted_only=False)
        if number == 20:
            await account.parts.snapshots.write()
            await account.create_folder("Later")
        seen.append((world.clock.now(), account.log.state))
        world.clock.advance(3600)
    other = await world.pod().open("bob@example.com")
    for moment, state in seen[::6]:
        for view in (await other.at(moment), await account.at(moment + 1800)):
            assert account_snapshot.same(view.state, state)
            folder = view.folder("INBOX")
            assert len([raw async for _, raw in folder.read_many(np.arange(folder.count))]) == folder.count
    with pytest.raises(Refused, match="beyond-retention"):
        await account.at(seen[0][0] - 10 * DAY)


async def test_restore(world: World):
    """A user emptied folders by mistake: everything comes back, as new UIDs, flags kept; nothing else changes."""
    account, inbox = await world.account()
    await account.append(inbox, [NewMessage(message(f"m{number}"), ("\\Flagged", "blue")) for number in range(5)])
    work = await account.create_folder("Work/Old")
    await account.move(inbox, uids(2), work.id)
    good = world.clock.now()
    world.clock.advance(3600)
    await account.expunge(inbox, uids(1, 3), deleted_only=False)
    await account.delete_folder(work.id)
    dry = await restore(account, good, dry_run=True)
    assert dry.messages == {"INBOX": 2, "Work/Old": 1}
    before = account.view.seq
    assert account.view.folder("Work/Old") is None
    assert (await restore(account, good)).messages == dry.messages
    assert account.view.seq > before
    view = account.view.folder("INBOX")
    assert view.uids().tolist() == [4, 5, 6, 7]
    assert await readable(account) == ["m3", "m4", "m0", "m2"]
    assert len(set(view.flags().tolist())) == 1
    assert account.view.folder("Work/Old").uidvalidity > work.uidvalidity
    await restore(account, good, "Rescue")
    assert (account.view.folder("Rescue").count, account.view.folder("Rescue/Work/Old").count) == (4, 1)
    assert await (await world.pod().open("bob@example.com")).view.folder("Rescue/Work/Old").read(0) == message("m1")
    await same_as_replay(account)


async def test_restored_bodies_outlive_their_reclaim(world: World):
    """A restore that lands just before the reclaim: what was restored must not be emptied by the list made earlier."""
    account, inbox = await world.account()
    await account.append(inbox, [NewMessage(message("x"))])
    good = world.clock.now()
    world.clock.advance(60)
    await account.expunge(inbox, uids(1), deleted_only=False)
    world.clock.advance(15 * DAY)
    await account.append(inbox, [NewMessage(message("y"))])
    other = await world.pod().open("bob@example.com")

    class Slow(Forgetting):
        async def decide(self, history: object, listed: ops.Reclaimed) -> int:
            if other.log.state.restored == 0:
                await restore(other, good)
            return await super().decide(history, listed)  # type: ignore[arg-type]

    await Slow(account).run()
    await account.refresh()
    assert sorted(await readable(await world.pod().open("bob@example.com"))) == ["x", "y"]
    with pytest.raises(Refused, match="beyond-retention"):
        await restore(account, good)


async def test_big_bodies(world: World, monkeypatch: pytest.MonkeyPatch):
    """Uploads nobody referred to go; one that is referred to too late is uploaded anew; referred ones stay."""
    monkeypatch.setattr(limits, "BIG_BODY_BYTES_MIN", 20_000)
    monkeypatch.setattr(limits, "PREPARE_OFFLOAD_BYTES_MIN", 10_000)
    monkeypatch.setattr(limits, "BIG_PIECE_BYTES", 4096)
    account, inbox = await world.account()
    raw = message("big", "0123456789" * 5000)
    await account.append(inbox, [NewMessage(raw), NewMessage(message("small"))])
    assert len(world.objects.keys("/big/")) == 1
    await account.log.env.objects.put(account.log.keys.big(1, account._shared.ids.above("")), b"orphan")
    fresh = (await world.pod().open("bob@example.com")).view.folder("INBOX")
    assert await fresh.read(0) == raw
    assert await fresh.read(0, 4090, 10_000) == raw[4090:14_090]
    assert await fresh.read(0, len(raw) - 5, 100) == raw[-5:]
    world.clock.advance(20 * DAY)
    await account.append(inbox, [NewMessage(message("later"))])
    await Forgetting(account).run()
    assert len(world.objects.keys("/big/")) == 1
    assert account.log.state.big_watermark

    slow = ManualClock(world.clock.now() - 300 * DAY)  # its ids would be old ones
    late = await make_store(world.objects, slow).open("bob@example.com")
    late.log.state.big_watermark, kept = "", late.log.state.big_watermark  # it has not heard of the reclaim when it uploads
    task = asyncio.ensure_future(late.append(inbox, [NewMessage(raw)]))
    await asyncio.sleep(0)
    late.log.state.big_watermark = kept
    await task
    assert all(big.id > kept for email, big in late.log.state.bigs.items() if email > 3)
    assert await late.view.folder("INBOX").read(3) == raw


async def test_many_messages_at_once_spread_over_objects(world: World):
    """MULTIAPPEND of more than an entry holds is still all or nothing, in one entry of bounded size."""
    account, inbox = await world.account()
    rng = np.random.default_rng(1)
    bodies = [message(f"m{number}", rng.bytes(600_000).hex()) for number in range(12)]
    await account.append(inbox, [NewMessage(raw) for raw in bodies])
    assert world.size(account, 2) <= limits.ENTRY_BYTES_MAX
    assert await (await world.pod().open("bob@example.com")).view.folder("INBOX").read(11) == bodies[11]


@pytest.mark.parametrize("stale", [False, True])
async def test_erased_mail_is_gone_and_the_next_owner_starts_anew(world: World, stale: bool):
    """Nothing of the old owner's is left in the bucket or reaches the next, and UIDVALIDITY goes on (invariants 6 and 16)."""
    account, inbox = await world.account()
    for number in range(20):
        await account.append(inbox, [NewMessage(message(f"secret{number}"))])
    await account.create_folder("Confidential")
    await account.parts.snapshots.write()
    validity = account.view.folder("INBOX").uidvalidity
    other = await world.pod().open("bob@example.com")
    await erasing.erase(account.parts)
    if stale:  # a pod that overwrites an entry after it was purged: the next round takes it away again
        key = account.log.keys.entry(3)
        old = world.objects.objects[key].data
        await erasing.Purge(account.parts).run()
        await world.objects.put(key, old)
    await erasing.Purge(account.parts).run()
    left = b"".join(held.data for held in world.objects.objects.values())
    assert b"secret" not in left
    assert b"Confidential" not in left
    assert not world.objects.keys("/sum/")
    for closed in (account, other):
        with pytest.raises(Refused, match="account-closed"):
            await closed.append(inbox, [NewMessage(message("late"))])
    again = await world.pod().open("bob@example.com")
    assert again.incarnation > account.incarnation
    assert again.view.folder("INBOX").count == 0
    assert again.view.folder("INBOX").uidvalidity > validity
    assert again.view.folder("INBOX").id != inbox
    assert [folder.name for folder in again.view.folders()].count("Confidential") == 0
    with pytest.raises(Refused, match="account-closed"):
        await other.append(again.view.folder("INBOX").id, [NewMessage(message("to the old owner"))])
    await again.append(again.view.folder("INBOX").id, [NewMessage(message("new"))])
    await erasing.erase_and_purge(again.parts)
    third = await world.pod().open("bob@example.com")
    assert third.view.folder("INBOX").uidvalidity > again.view.folder("INBOX").uidvalidity
    assert not (await verify(third.parts)).findings


def test_closed_state_says_all_that_outlives_the_account():
    """The erase entry stands for itself: a reader that has only it goes on exactly where one goes on that has all."""
    state = AccountState()
    state.seq, state.incarnation, state.closed = 9, 1, False
    state.next_folder, state.next_email, state.next_uidvalidity, state.big_watermark = 8, 77, 1234, "W"
    state.transit = {3: TransitRecord(5, frozenset({(6, 0, 1)}))}
    operation = erasing.closed_state(state)
    full, alone = MACHINE.begin(state, 10), MACHINE.begin(AccountState(), 10)
    full.apply(operation)
    alone.apply(operation)
    assert account_snapshot.same(full.finish(b"c" * 16, 0), alone.finish(b"c" * 16, 0))

"""Mail for several recipients: durable once, then in each account exactly once, whoever was killed, paused or adopted."""

# A folder that is not there fails the test by itself.
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from mailpod.errors import Refused, StoreUnavailable
from mailpod.limits import store as limits
from mailpod.store import MailStore, StoreOptions, erasing
from mailpod.store import transit_state as ts
from mailpod.store.transit import TransitLog
from mailpod.store.types import TransitMessage, TransitRecipient
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.stores import make_store, message

PEOPLE = [f"{name}@example.com" for name in ("alice", "bob", "carol")]


class World:
    """A bucket and pods. A pod that is dropped without `drain` was killed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.objects = MemoryObjects(self.clock)

    def pod(self, name: str) -> MailStore:
        return make_store(self.objects, self.clock, options=StoreOptions(pod=name))

    async def boxes(self) -> list[list[str]]:
        """Subjects of each person's INBOX, seen by a fresh pod."""
        out = []
        for person in PEOPLE:
            inbox = (await self.pod("reader").open(person)).view.folder("INBOX")
            out.append([one.subject for one in await inbox.summaries(np.arange(inbox.count))])
        return out


@pytest.fixture
def world() -> World:
    return World()


def mail(subject: str, people: list[str] = PEOPLE, folder: str = "INBOX") -> TransitMessage:
    recipients = tuple(TransitRecipient(one, folder, b"Delivered-To: " + one.encode() + b"\r\n", ("\\Flagged",)) for one in people)
    return TransitMessage(message(subject), "eve@example.org", recipients)


async def stop_worker(store: MailStore) -> None:
    """The pod dies before it delivers anything."""
    for log in store.transit.logs.values():
        log.stop()
    await asyncio.sleep(0)


async def test_accepted_once_delivered_to_each(world: World):
    """One body in transit, three copies delivered, each with its own header lines; then nothing is left to do."""
    pod = world.pod("a")
    queue_id = await pod.accept(mail("one"))
    assert queue_id.count("-") == 2
    assert not pod.transit_idle()
    await pod.drain()
    assert pod.transit_idle()
    assert await world.boxes() == [["one"]] * 3
    inbox = (await world.pod("b").open(PEOPLE[1])).view.folder("INBOX")
    assert (await inbox.read(0)).startswith(b"Delivered-To: bob@example.com\r\nFrom:")
    assert inbox.flags().tolist() == [4]
    with pytest.raises(Refused, match="shutting-down"):
        await pod.accept(mail("too late"))


async def test_killed_after_250_is_adopted(world: World):
    """kill -9 right after 250: another pod works the log off (case 29), at the earliest when it is surely abandoned."""
    pod = world.pod("a")
    await pod.accept(mail("one"))
    await stop_worker(pod)
    other = world.pod("b")
    await other.transit.scan()
    assert await world.boxes() == [[], [], []]  # it may still be alive
    world.clock.advance(limits.HOLD_TTL_S + 1)
    await other.transit.scan()
    await other.drain()
    assert await world.boxes() == [["one"]] * 3


async def test_a_restarted_pod_goes_on_at_once(world: World):
    """The same pod name with another nonce is the same machine restarted: no need to wait."""
    pod = world.pod("a")
    await pod.accept(mail("one"))
    await stop_worker(pod)
    again = world.pod("a")
    await again.transit.scan()
    await again.drain()
    assert await world.boxes() == [["one"]] * 3


async def test_paused_holder_and_adopter_both_deliver(world: World):
    """Two pods deliver the same message at the same time: each account takes it once (invariant 13)."""
    pod, other = world.pod("a"), world.pod("b")
    await pod.accept(mail("one"))
    await stop_worker(pod)
    other.transit.pod_gone("a")
    await other.transit.scan()
    (old,) = [log for log in pod.transit.logs.values() if log.held]
    old.work_soon()  # it wakes up and goes on, not knowing
    await asyncio.gather(other.drain(), old.wait_worker())
    assert await world.boxes() == [["one"]] * 3
    assert not await old.prove_hold()
    await pod.accept(mail("two"))  # takes another log
    await pod.drain()
    assert await world.boxes() == [["one", "two"]] * 3


async def test_killed_between_delivery_and_done(world: World):
    """The next one delivers again; the account knows it already, also under a watermark that moved on."""
    pod = world.pod("a")
    killed: list[int] = []

    class Dying(TransitLog):
        async def finish(self, key: tuple[int, int], recipients: list[int]) -> bool:
            killed.extend(recipients)
            raise asyncio.CancelledError

    (number,) = [log.number for log in [await pod.transit.current()]]
    dying = Dying(pod, number)
    held = pod.transit.logs[number]
    await dying.open()
    dying.nonce = held.nonce
    await held.accept(mail("one"), await pod.transit._resolve(mail("one")), message("one"))
    held.stop()
    await dying.log.refresh()
    with pytest.raises(asyncio.CancelledError):
        await dying._round()
    assert killed == [0, 1, 2]
    assert await world.boxes() == [["one"]] * 3
    other = world.pod("b")
    other.transit.pod_gone("a")
    await other.transit.scan()
    await other.drain()
    assert await world.boxes() == [["one"]] * 3
    (log,) = other.transit.logs.values()
    assert not log.log.state.pending


async def test_done_of_a_stranger_is_refused(world: World):
    """The old holder's next commit meets the new hold, and it stops."""
    pod, other = world.pod("a"), world.pod("b")
    await pod.accept(mail("one"))
    await stop_worker(pod)
    other.transit.pod_gone("a")
    await other.transit.scan()
    (old,) = [log for log in pod.transit.logs.values() if log.nonce]
    with pytest.raises(Refused, match="hold-lost"):
        await old.committer.submit(ts.MarkDone(old.nonce, 2, 0, [0]))
    await other.drain()


async def test_watermarks_bound_what_accounts_remember(world: World):
    """After a thousand messages an account does not remember a thousand deliveries."""
    pod = world.pod("a")
    for number in range(30):
        await pod.accept(mail(str(number)))
        while not pod.transit_idle():
            await asyncio.sleep(0)
    account = await pod.open(PEOPLE[0])
    await account.refresh()
    (record,) = account.log.state.transit.values()
    assert len(record.applied) <= 2
    assert record.watermark > 50
    await pod.drain()


async def test_one_account_that_fails_does_not_stop_the_others(world: World):
    """A quarantined mailbox keeps its mail in transit; the others get theirs; nothing is lost once it is mended."""
    pod = world.pod("a")
    bob = await pod.open(PEOPLE[1])
    key = bob.log.keys.entry(1)
    held = world.objects.objects[key]
    await pod.accept(mail("one"))
    await stop_worker(pod)
    world.objects.objects[key] = held._replace(data=b"rotten" + held.data)
    other = world.pod("b")
    other.transit.pod_gone("a")
    await other.transit.scan()
    (log,) = [one for one in other.transit.logs.values() if one.held]
    for _ in range(200):
        await asyncio.sleep(0)
    assert next(iter(log.log.state.pending.values())).remaining == {1}
    world.objects.objects[key] = held
    world.clock.advance(limits.QUARANTINE_RETRY_S + 1)
    await other.drain()
    assert await world.boxes() == [["one"]] * 3


async def test_erased_meanwhile_reaches_no_later_owner(world: World):
    """Mail accepted for the old owner of an address is never filed under the new one (invariant 16)."""
    pod = world.pod("a")
    await pod.accept(mail("secret", PEOPLE[:2]))
    await stop_worker(pod)
    bob = await world.pod("admin").open(PEOPLE[1])
    await erasing.erase_and_purge(bob.parts)
    again = await world.pod("admin").open(PEOPLE[1])
    assert again.incarnation > bob.incarnation
    other = world.pod("b")
    other.transit.pod_gone("a")
    await other.transit.scan()
    await other.drain()
    assert await world.boxes() == [["secret"], [], []]
    await other.drain()


async def test_accept_names_the_newest_incarnation(world: World):
    """A pod that has not heard of an erase accepts for the new owner, not into the void."""
    pod = world.pod("a")
    old = await pod.open(PEOPLE[1])
    admin = await world.pod("admin").open(PEOPLE[1])
    await erasing.erase_and_purge(admin.parts)
    await world.pod("admin").open(PEOPLE[1])
    assert old.log.state.incarnation == old.incarnation  # it does not know
    await pod.accept(mail("hello", [PEOPLE[1]]))
    await pod.drain()
    assert await world.boxes() == [[], ["hello"], []]


async def test_unknown_folder_falls_back_to_inbox(world: World):
    """`bob+lists@` was resolved when the folder existed; it was deleted since: the mail still arrives."""
    pod = world.pod("a")
    await pod.accept(mail("one", [PEOPLE[0]], "Gone"))
    await pod.accept(mail("two", [PEOPLE[0]], "Archive"))
    await pod.drain()
    assert await world.boxes() == [["one"], [], []]
    assert (await world.pod("b").open(PEOPLE[0])).view.folder("Archive").count == 1


async def test_store_that_fails_for_a_while(world: World):
    """Deliveries are tried again, later each time, and nothing is lost or doubled (cases 26, 30)."""
    pod = world.pod("a")
    for person in PEOPLE:
        await pod.open(person)
    real, failing = world.objects.create, [30]

    async def create(key: str, data: object) -> object:
        if "/accounts/" in key and failing[0]:
            failing[0] -= 1
            raise StoreUnavailable("503")
        return await real(key, data)  # type: ignore[arg-type]

    world.objects.create = create  # type: ignore[method-assign, assignment]
    await pod.accept(mail("one"))
    await pod.drain()
    assert await world.boxes() == [["one"]] * 3


async def test_bodies_of_done_mail_are_dropped(world: World):
    """Transit logs are never dropped, but what is done does not stay in them."""
    pod = world.pod("a")
    for number in range(5):
        await pod.accept(mail(f"secret{number}"))
    (log,) = [one for one in pod.transit.logs.values() if one.held]
    await log.wait_worker()
    before = sum(len(held.data) for key, held in world.objects.objects.items() if "/transit/" in key)
    await log.reclaim()
    after = b"".join(held.data for key, held in world.objects.objects.items() if "/transit/" in key)
    assert len(after) < before
    assert b"secret" not in after
    await pod.accept(mail("more"))
    await pod.drain()
    fresh = world.pod("b").transit.log(log.number)
    await fresh.open()
    assert not fresh.log.state.pending
    assert [len(box) for box in await world.boxes()] == [6, 6, 6]


async def test_big_mail_through_transit(world: World, monkeypatch: pytest.MonkeyPatch):
    """Bodies above 8 MiB have an object of their own in transit, too."""
    monkeypatch.setattr(limits, "BIG_BODY_BYTES_MIN", 20_000)
    monkeypatch.setattr(limits, "PREPARE_OFFLOAD_BYTES_MIN", 10_000)
    pod = world.pod("a")
    raw = message("big", "x" * 50_000)
    one = mail("big")._replace(raw=[raw[:1000], raw[1000:]])
    await pod.accept(one)
    await stop_worker(pod)
    other = world.pod("b")
    other.transit.pod_gone("a")
    await other.transit.scan()
    await other.drain()
    inbox = (await world.pod("c").open(PEOPLE[2])).view.folder("INBOX")
    assert (await inbox.read(0)).endswith(raw)


async def test_limits(world: World):
    """Nobody and too many are refused before anything is written."""
    pod = world.pod("a")
    for people in ([], [f"u{number}@example.com" for number in range(limits.TRANSIT_RECIPIENTS_MAX + 1)]):
        with pytest.raises(Refused, match="limit"):
            await pod.accept(mail("x", people))
    assert not world.objects.objects

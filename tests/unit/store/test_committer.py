"""Whose entry is it? Every answer that a PUT can get, and the one that never comes."""

# A folder that is not there fails the test by itself.
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mailpod.errors import CONDITIONAL_WRITES_REFUSED, InDoubt, Refused, StoreUnavailable
from mailpod.ports import PutOutcome, Stored
from mailpod.store.account import Account
from mailpod.store.types import NewMessage
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.stores import make_store, message

pytestmark = [pytest.mark.case(27)]


class Faulty(MemoryObjects):
    """Each script entry decides one create-only PUT (or GET), then all is well again."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.puts: list[Callable[[str, bytes], PutOutcome]] = []
        self.gets: list[Exception] = []
        self.sent: list[bytes] = []

    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        raw = data if isinstance(data, bytes) else b"".join(data)
        if "/log/" in key:
            self.sent.append(raw)
            if self.puts:
                return self.puts.pop(0)(key, raw)
        return await super().create(key, raw)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> Stored:
        if self.gets and "/log/" in key:
            raise self.gets.pop(0)
        return await super().get(key, start, length)

    # What may happen to a PUT.

    def landed_but_lost(self, key: str, raw: bytes) -> PutOutcome:
        if key not in self.objects:
            self._store(key, raw)
        raise StoreUnavailable("timeout")

    def landed_but_exists(self, key: str, raw: bytes) -> PutOutcome:
        if key not in self.objects:
            self._store(key, raw)
        return PutOutcome.EXISTS

    def never_arrived(self, key: str, raw: bytes) -> PutOutcome:
        raise StoreUnavailable("503")

    def false_conflict(self, key: str, raw: bytes) -> PutOutcome:
        return PutOutcome.EXISTS

    def refused(self, key: str, raw: bytes) -> PutOutcome:
        raise StoreUnavailable("501", CONDITIONAL_WRITES_REFUSED)


async def opened() -> tuple[Faulty, ManualClock, Account, int]:
    clock = ManualClock()
    objects = Faulty(clock)
    account = await make_store(objects, clock).open("bob@example.com")
    inbox = account.view.folder("INBOX")
    assert inbox is not None
    objects.sent.clear()
    return objects, clock, account, inbox.id


async def subjects(objects: MemoryObjects, clock: ManualClock) -> list[str]:
    """What a pod sees that has just been started."""
    account = await make_store(objects, clock).open("bob@example.com")
    inbox = account.view.folder("INBOX")
    assert inbox is not None
    return [one.subject for one in await inbox.summaries(np.arange(inbox.count))]


async def test_a_lone_message_is_exactly_one_put():
    """PERFORMANCE.md: a message costs one request, whatever else the store does."""
    objects, clock, account, inbox = await opened()
    before = objects.requests.copy()
    await account.append(inbox, [NewMessage(message("one"))])
    assert objects.requests - before == {"create": 1}
    assert await subjects(objects, clock) == ["one"]


@pytest.mark.parametrize("fault", ["landed_but_lost", "landed_but_exists"])
async def test_applied_but_the_reply_is_lost(fault: str):
    """The commit id tells that it is ours: acknowledged once, stored once."""
    objects, clock, account, inbox = await opened()
    objects.puts = [getattr(objects, fault)]
    outcome = await account.append(inbox, [NewMessage(message("one"))])
    assert outcome.uids == (1,)
    assert len(objects.sent) == 1
    assert await subjects(objects, clock) == ["one"]


@pytest.mark.parametrize("fault", ["never_arrived", "false_conflict"])
async def test_absent_means_the_identical_bytes_again(fault: str):
    """Another evaluation under another id would double the mail when the first PUT lands late."""
    objects, clock, account, inbox = await opened()
    objects.puts = [getattr(objects, fault)] * 2
    await account.append(inbox, [NewMessage(message("one"))])
    assert len(objects.sent) == 3
    assert len(set(objects.sent)) == 1
    assert await subjects(objects, clock) == ["one"]


async def test_another_pod_was_first():
    """The loser applies the winner's entry and evaluates anew: both messages, different UIDs."""
    objects, clock, account, inbox = await opened()
    other = await make_store(objects, clock).open("bob@example.com")
    one = await other.append(inbox, [NewMessage(message("theirs"))])
    two = await account.append(inbox, [NewMessage(message("ours"))])
    assert (one.uids, two.uids) == ((1,), (2,))
    assert account.view.seq == 3
    assert await subjects(objects, clock) == ["theirs", "ours"]


async def test_in_doubt_then_landing_late():
    """Unanswered for too long is 4xx. Whether it lands later or not, the next commit goes on and nothing is doubled."""
    objects, clock, account, inbox = await opened()
    objects.puts = [objects.never_arrived] * 1000
    with pytest.raises(InDoubt):
        await account.append(inbox, [NewMessage(message("doubtful"))])
    assert len(set(objects.sent)) == 1
    objects.puts = []
    await objects.create(account.log.keys.entry(2), objects.sent[0])  # the ghost lands
    await account.append(inbox, [NewMessage(message("next"))])
    assert await subjects(objects, clock) == ["doubtful", "next"]


async def test_in_doubt_and_never_landing():
    """The number is used by the next commit; a ghost after that changes nothing."""
    objects, clock, account, inbox = await opened()
    objects.puts = [objects.never_arrived] * 1000
    with pytest.raises(InDoubt):
        await account.append(inbox, [NewMessage(message("doubtful"))])
    ghost = objects.sent[0]
    objects.puts = []
    await account.append(inbox, [NewMessage(message("next"))])
    assert await objects.create(account.log.keys.entry(2), ghost) is PutOutcome.EXISTS
    assert await subjects(objects, clock) == ["next"]


async def test_store_answers_neither_put_nor_get():
    """A store that is down altogether: in doubt in bounded time, no false 250."""
    objects, clock, account, inbox = await opened()
    objects.puts = [objects.landed_but_lost]
    objects.gets = [StoreUnavailable("down")] * 10_000
    started = clock.monotonic()
    with pytest.raises(InDoubt):
        await account.append(inbox, [NewMessage(message("one"))])
    assert clock.monotonic() - started < 120
    objects.gets = []
    await account.append(inbox, [NewMessage(message("two"))])
    assert await subjects(objects, clock) == ["one", "two"]


async def test_conditional_writes_refused_says_so():
    """A store without create-only PUT: a clear 451 with the reason, not a doubt, and nothing written."""
    objects, clock, account, inbox = await opened()
    objects.puts = [objects.refused]
    with pytest.raises(StoreUnavailable) as caught:
        await account.append(inbox, [NewMessage(message("one"))])
    assert caught.value.reason is CONDITIONAL_WRITES_REFUSED
    assert await subjects(objects, clock) == []


async def test_what_queues_meanwhile_is_one_batch():
    """A burst costs few PUTs; each request has its own outcome, and one that is refused does not hurt the others."""
    objects, clock, account, inbox = await opened()
    asked = [asyncio.ensure_future(account.append(inbox, [NewMessage(message(str(number)))])) for number in range(20)]
    wrong = asyncio.ensure_future(account.append(999, [NewMessage(message("nowhere"))]))
    results = await asyncio.gather(*asked)
    with pytest.raises(Refused):
        await wrong
    assert sorted(uid for one in results for uid in one.uids) == list(range(1, 21))
    assert len(objects.sent) <= 2
    assert len(await subjects(objects, clock)) == 20


async def test_cancelled_callers_leave_the_account_whole():
    """A client that disconnects during its command: its request may have happened or not; everybody else's goes on."""
    objects, clock, account, inbox = await opened()
    tasks = [asyncio.ensure_future(account.append(inbox, [NewMessage(message(str(number)))])) for number in range(6)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    done = [one for one in results if not isinstance(one, BaseException)]
    assert len(done) == 4
    stored = await subjects(objects, clock)
    assert {"1", "2", "4", "5"} <= set(stored)
    assert len(stored) == len(set(stored))


async def test_nothing_to_write_is_said_of_the_newest_state():
    """`STORE +FLAGS` that changes nothing here may change something there: the answer is about the newest state."""
    objects, clock, account, inbox = await opened()
    await account.append(inbox, [NewMessage(message("one"), ("\\Seen",))])
    other = await make_store(objects, clock).open("bob@example.com")
    await other.store_flags(inbox, np.array([1], dtype=np.uint32), "remove", ["\\Seen"])
    outcome = await account.store_flags(inbox, np.array([1], dtype=np.uint32), "add", ["\\Seen"])
    assert outcome.changed.tolist() == [1]
    puts = objects.requests["create"]
    outcome = await account.store_flags(inbox, np.array([1], dtype=np.uint32), "add", ["\\Seen"])
    assert outcome.changed.tolist() == []
    assert objects.requests["create"] == puts

"""The account's state machine: against a plain model, replayed, snapshotted, raced."""

# A folder that is not there fails the test by itself.
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.errors import OVER_QUOTA, Refused
from mailpod.limits import store as limits
from mailpod.store import MailStore, account_snapshot
from mailpod.store.account import Account
from mailpod.store.history import Replay
from mailpod.store.state import AccountState
from mailpod.store.types import DEFAULT_FOLDERS, NewMessage
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.stores import make_store, message

pytestmark = pytest.mark.usefixtures("small_chunks")
FLAGS = ("\\Seen", "\\Deleted", "\\Flagged", "$Forwarded", "work")


@pytest.fixture(name="small_chunks")
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of many chunks with few messages."""
    monkeypatch.setattr(limits, "CHUNK_ROWS", 8)
    monkeypatch.setattr(limits, "CHUNK_ROWS_FIRST", 2)
    monkeypatch.setattr(limits, "SNAPSHOT_ENTRIES_MIN", 5)
    monkeypatch.setattr(limits, "SNAPSHOT_ENTRIES_MAX", 9)
    monkeypatch.setattr(limits, "VANISHED_RECORDS_MAX", 4)


def uids(*numbers: int) -> Any:
    return np.array(numbers, dtype=np.uint32)


class Model:
    """What an account is, in the plainest Python."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[int, tuple[str, frozenset[str]]]] = {name: {} for name, _ in DEFAULT_FOLDERS}
        self.next: dict[str, int] = dict.fromkeys(self.folders, 1)

    def append(self, folder: str, subject: str, flags: frozenset[str]) -> None:
        self.folders[folder][self.next[folder]] = (subject, flags)
        self.next[folder] += 1

    def flag(self, folder: str, some: set[int], mode: str, flags: frozenset[str]) -> None:
        for uid in some & self.folders[folder].keys():
            subject, old = self.folders[folder][uid]
            new = {"add": old | flags, "remove": old - flags, "replace": flags}[mode]
            self.folders[folder][uid] = (subject, new)

    def copy(self, folder: str, some: set[int], target: str, *, move: bool) -> None:
        for uid in sorted(some & self.folders[folder].keys()):
            self.append(target, *self.folders[folder][uid])
            if move:
                del self.folders[folder][uid]

    def expunge(self, folder: str, some: set[int]) -> None:
        for uid in some & self.folders[folder].keys():
            if "\\Deleted" in self.folders[folder][uid][1]:
                del self.folders[folder][uid]


async def picture(account: Account) -> dict[str, dict[int, tuple[str, frozenset[str]]]]:
    """The account as a client sees it."""
    view = account.view
    names = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", *view.keywords)
    out: dict[str, dict[int, tuple[str, frozenset[str]]]] = {}
    for folder in view.folders():
        summaries = await folder.summaries(np.arange(folder.count))
        masks = folder.flags().tolist()
        out[folder.name] = {
            uid: (summary.subject, frozenset(name for bit, name in enumerate(names) if mask >> bit & 1))
            for uid, summary, mask in zip(folder.uids().tolist(), summaries, masks, strict=True)
        }
    return out


NAMES = st.sampled_from([name for name, _ in DEFAULT_FOLDERS][:3])
SETS = st.sets(st.integers(1, 24), max_size=12)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), NAMES, st.integers(1, 5), st.frozensets(st.sampled_from(FLAGS), max_size=3)),
        st.tuples(
            st.just("flag"), NAMES, SETS, st.sampled_from(["add", "remove", "replace"]), st.frozensets(st.sampled_from(FLAGS), max_size=2)
        ),
        st.tuples(st.just("copy"), NAMES, SETS, NAMES, st.booleans()),
        st.tuples(st.just("expunge"), NAMES, SETS),
        st.tuples(st.just("switch")),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_model(steps: list[tuple[Any, ...]]):
    """Two pods take turns with random commands: both see what a plain model says, and so do a replay and a snapshot."""
    asyncio.run(_against_model(steps))


async def _against_model(steps: list[tuple[Any, ...]]) -> None:
    clock = ManualClock()
    objects = MemoryObjects(clock)
    pods = [await make_store(objects, clock, seed=number).open("bob@example.com") for number in (1, 2)]
    model = Model()
    number = 0
    ids = {folder.name: folder.id for folder in pods[0].view.folders()}
    for step in steps:
        account = pods[0]
        last = account.view.seq
        if step[0] == "append":
            _, folder, count, flags = step
            some = []
            for _ in range(count):
                number += 1
                some.append(NewMessage(message(f"s{number}"), tuple(sorted(flags))))
                model.append(folder, f"s{number}", flags)
            outcome = await account.append(ids[folder], some)
            assert outcome.modseq > last
        elif step[0] == "flag":
            _, folder, some, mode, flags = step
            await account.store_flags(ids[folder], uids(*sorted(some)), mode, sorted(flags))
            model.flag(folder, some, mode, flags)
        elif step[0] == "copy":
            _, folder, some, target, move = step
            await (account.move if move else account.copy)(ids[folder], uids(*sorted(some)), ids[target])
            model.copy(folder, some, target, move=move)
        elif step[0] == "expunge":
            await account.expunge(ids[step[1]], uids(*sorted(step[2])))
            model.expunge(step[1], step[2])
        else:
            pods.reverse()
    for account in pods:
        await account.refresh()
        assert await picture(account) == model.folders
        assert {folder.name: folder.uidnext for folder in account.view.folders()} == model.next
        assert account.view.usage.messages == sum(len(folder) for folder in model.folders.values())
        assert account.view.usage.bytes == sum(int(folder.sizes().sum()) for folder in account.view.folders())
    line = await replayed(pods[0])
    fresh = await make_store(objects, clock).open("bob@example.com")
    dumped = b"".join(account_snapshot.dump(pods[0].log.state))
    loaded = account_snapshot.load(memoryview(dumped), pods[0].view.seq, pods[0].log.state.commit)
    for state in (line, pods[1].log.state, fresh.log.state, loaded):
        assert account_snapshot.same(state, pods[0].log.state)


async def replayed(account: Account) -> AccountState:
    """From entry 1 to the head."""
    line = Replay(account.log, AccountState(), 0.0)
    async for entry in line.entries():
        line.step(entry)
    return line.state


async def fresh() -> tuple[MailStore, Account, int, MemoryObjects, ManualClock]:
    clock = ManualClock()
    objects = MemoryObjects(clock)
    store = make_store(objects, clock)
    account = await store.open("bob@example.com")
    return store, account, account.view.folder("INBOX").id, objects, clock


async def test_views_are_immutable():
    """POP3 holds one view for its whole session: nothing that happens later may show in it (case 22)."""
    _, account, inbox, _, _ = await fresh()
    await account.append(inbox, [NewMessage(message(str(number))) for number in range(20)])
    view = account.view.folder("INBOX")
    before = view.uids().copy(), view.flags().copy(), view.modseqs().copy()
    await account.store_flags(inbox, view.uids(), "add", ["\\Deleted"])
    await account.expunge(inbox, view.uids()[::2])
    await account.append(inbox, [NewMessage(message("new"))] * 9)
    assert [part.tolist() for part in before] == [view.uids().tolist(), view.flags().tolist(), view.modseqs().tolist()]
    assert len(await view.read(0)) == len(message("0"))
    with pytest.raises(ValueError, match="read-only"):
        view.flags()[0] = 1


async def test_condstore_and_vanished():
    """QRESYNC: what changed and what vanished since a MODSEQ, added to what a client had, is the server's state (invariant 12)."""
    _, account, inbox, _, _ = await fresh()
    await account.append(inbox, [NewMessage(message(str(number))) for number in range(10)])
    since = account.view.folder("INBOX").highestmodseq
    await account.store_flags(inbox, uids(2, 4), "add", ["\\Seen"])
    await account.expunge(inbox, uids(5, 6), deleted_only=False)
    view = account.view.folder("INBOX")
    assert view.vanished_since(since).tolist() == [5, 6]
    assert view.uids()[view.modseqs() > since].tolist() == [2, 4]
    kept = await account.store_flags(inbox, uids(1, 2), "add", ["\\Flagged"], unchanged_since=since)
    assert (kept.changed.tolist(), kept.failed.tolist()) == ([1], [2])
    for uid in (1, 2, 3, 4, 7, 8):
        await account.expunge(inbox, uids(uid), deleted_only=False)
    assert account.view.folder("INBOX").vanished_since(since) is None  # more than is remembered: the client compares UIDs
    assert account.view.folder("INBOX").vanished_since(account.view.seq - 1).tolist() == [8]


async def test_folders():
    """Create with parents, rename with children, delete, INBOX's special rules, and names that never repeat a UIDVALIDITY."""
    _, account, inbox, _, _ = await fresh()
    made = await account.create_folder("Work/2026/May")
    assert [folder.name for folder in account.view.folders()][-3:] == ["Work", "Work/2026", "Work/2026/May"]
    await account.append(made.id, [NewMessage(message("in May"))])
    work = account.view.folder("Work")
    await account.rename_folder(work.id, "Job/Old")
    assert account.view.folder("Job/Old/2026/May").id == made.id
    assert account.view.folder("Job/Old/2026/May").uidvalidity == made.uidvalidity
    with pytest.raises(Refused, match="folder-has-children"):
        await account.delete_folder(work.id)
    await account.delete_folder(made.id)
    assert account.view.usage.messages == 0
    again = await account.create_folder("Job/Old/2026/May")
    assert again.id != made.id
    assert again.uidvalidity > made.uidvalidity
    await account.append(inbox, [NewMessage(message("in")), NewMessage(message("box"))])
    await account.rename_folder(inbox, "Before")
    assert (account.view.folder("inbox").count, account.view.folder("Before").count) == (0, 2)
    for bad in ("", "a//b", "/a", "a/", "a\x00b", "a\rb", "x" * 2000, "a\u2028b", "/".join("a" * 40)):
        with pytest.raises(Refused, match="bad-folder-name"):
            await account.create_folder(bad)
    for reason, action in (
        ("folder-exists", account.create_folder("iNbOx")),
        ("special-use-taken", account.create_folder("Other", "\\Sent")),
        ("inbox", account.delete_folder(inbox)),
        ("no-such-folder", account.rename_folder(999, "x")),
        ("bad-folder-name", account.rename_folder(work.id, "Job/Old/Inside")),
        ("no-such-folder", account.copy(inbox, uids(1), 999)),
    ):
        with pytest.raises(Refused, match=reason):
            await action
    await account.set_subscribed("Nowhere", True)
    await account.set_subscribed("inbox", True)
    assert account.view.subscriptions == {"Nowhere", "INBOX"}
    await account.set_subscribed("Nowhere", False)
    assert account_snapshot.same(await replayed(account), account.log.state)


async def test_keywords_have_a_limit():
    """59 keywords fit beside the system flags; one more is NO [LIMIT] and changes nothing."""
    _, account, inbox, _, _ = await fresh()
    await account.append(inbox, [NewMessage(message("x"), tuple(f"k{number}" for number in range(59)))])
    with pytest.raises(Refused, match="limit"):
        await account.store_flags(inbox, uids(1), "add", ["one-more"])
    outcome = await account.store_flags(inbox, uids(1), "remove", ["K5", "unknown"])
    assert outcome.changed.tolist() == [1]
    assert len(account.view.keywords) == 59


@pytest.mark.case(13)
async def test_quota_at_the_edge():
    """50 appends in parallel from two pods at the quota's edge: at most one overshoots, the others are refused whole."""
    _, account, inbox, objects, clock = await fresh()
    other = await make_store(objects, clock).open("bob@example.com")
    size = len(message("x"))
    quota = size * 10 - 1
    results = await asyncio.gather(
        *((account, other)[number % 2].append(inbox, [NewMessage(message("x"))], quota_bytes=quota) for number in range(50)),
        return_exceptions=True,
    )
    refused = [one for one in results if isinstance(one, Refused)]
    assert len(refused) == 40
    assert {one.reason for one in refused} == {OVER_QUOTA}
    await account.refresh()
    assert account.view.usage.bytes < quota + size
    with pytest.raises(Refused, match="over-quota"):
        await account.append(inbox, [NewMessage(message("x"))] * 3, quota_bytes=quota + 2 * size)
    assert account.view.folder("INBOX").count == 10


async def test_change_callbacks_and_peers():
    """IDLE: a commit of this pod and one that another pod tells about both wake the sessions; a broken one hurts nobody."""
    clock = ManualClock()
    objects = MemoryObjects(clock)
    told: list[tuple[str, int]] = []
    one = make_store(objects, clock, on_commit=lambda log, seq: told.append((log, seq)))
    two = make_store(objects, clock)
    account, other = await one.open("bob@example.com"), await two.open("bob@example.com")
    inbox = account.view.folder("INBOX").id
    woken: list[int] = []
    other.on_change(lambda: 1 / 0)  # type: ignore[arg-type]
    stop = other.on_change(lambda: woken.append(other.view.seq))
    await account.append(inbox, [NewMessage(message("x"))])
    assert told[-1] == ("accounts/example.com/bob", 2)
    two.heard(*told[-1])
    two.heard("accounts/example.com/nobody", 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert woken == [2]
    stop()
    await other.append(inbox, [NewMessage(message("y"))])
    await asyncio.sleep(0)
    assert woken == [2]


async def test_refreshes_share_a_request():
    """100 sessions that SELECT at once cost one or two GETs; an answer asked for before the caller came does not count."""
    _, account, inbox, objects, clock = await fresh()
    other = await make_store(objects, clock).open("bob@example.com")
    before = objects.requests["get"]
    await asyncio.gather(*(account.refresh() for _ in range(100)))
    assert objects.requests["get"] - before == 2
    await other.append(inbox, [NewMessage(message("x"))])
    before = objects.requests["get"]
    assert (await account.refresh(max_age_s=60)).seq == 1
    assert objects.requests["get"] == before
    assert (await account.refresh()).seq == 2


async def test_opening_twice_gives_the_same_object():
    """All sessions of an account share one view."""
    store, account, _, _, _ = await fresh()
    assert await store.open("bob@example.com") is account
    a, b = await asyncio.gather(store.open("new@example.com"), store.open("new@example.com"))
    assert a is b
    with pytest.raises(Refused, match="not-an-account"):
        await store.open("nobody")


async def test_two_pods_create_an_account_at_once():
    """First mail from two pods: one set of folders."""
    clock = ManualClock()
    objects = MemoryObjects(clock)
    accounts = await asyncio.gather(*(make_store(objects, clock).open("bob@example.com") for _ in range(4)))
    assert {account.incarnation for account in accounts} == {1}
    assert len(objects.keys("/log/")) == 1

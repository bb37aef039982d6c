"""From an envelope to mailboxes, on the real store over a bucket in memory."""

import asyncio
from typing import Any

import numpy as np
import pytest

from mailpod.delivery import (
    Delivered,
    Envelope,
    LocalRecipient,
    Pipeline,
    QuotaLedger,
    Refuse,
    find_recipient,
    reasons,
    receive_steps,
    submit_steps,
)
from mailpod.delivery.envelope import Client, Job
from mailpod.delivery.steps import Step, check_form, remove_forged_results
from mailpod.delivery.trace import delivery_prefix, received
from mailpod.directory.directory import Directory, Match
from mailpod.errors import ACCOUNT_CLOSED, OVER_QUOTA
from mailpod.store import admin
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.smtp import CountingEntropy, MemoryStore, example_directory, example_services
from tests.support.stores import make_store

CLIENT = Client("192.0.2.1", "client.example", "ESMTPS", "TLSv1.3 TLS_AES_256_GCM_SHA384")
PLAIN = b"From: a@b.example\r\nSubject: x\r\nMessage-ID: <1@b.example>\r\n\r\ntext\r\n"


def envelope(*addresses, directory=None, login=None, **changes) -> Any:
    directory = directory or example_directory()
    found: Any = [find_recipient(directory, *address.rpartition("@")[::2], submission=False) for address in addresses]
    assert all(isinstance(one, LocalRecipient) for one in found)
    fields: Any = {"session_id": "s", "id": "s-1", "protocol": "smtp", "client": CLIENT, "reverse_path": "a@b.example", "login": login}
    return Envelope(**(fields | changes), recipients=found)


def pipeline(store, steps=None) -> Any:
    services: Any = example_services()
    services.store = store
    return Pipeline(services, QuotaLedger(), receive_steps() if steps is None else steps)


async def stored(store, address, folder="INBOX") -> Any:
    account = await store.open(address)
    view = account.view.folder(folder)
    return [raw async for _, raw in view.read_many(np.arange(view.count))]


async def test_one_recipient_is_one_commit_to_the_mailbox():
    """What the client is told is stored is there, byte for byte below our trace headers, under the id that it was told."""
    store = make_store()
    outcome = await pipeline(store).deliver(envelope("al@example.net"), PLAIN)
    assert isinstance(outcome, Delivered)
    (raw,) = await stored(store, "alice@example.com")
    assert raw == (
        b"Return-Path: <a@b.example>\r\nDelivered-To: alice@example.com\r\nX-Original-To: al@example.net\r\n"
        b"Received: from client.example ([192.0.2.1])\r\n\tby mx.example.com with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384) id s-1\r\n"
        b"\tfor <al@example.net>;\r\n\tMon, 21 Sep 2026 14:13:20 +0000\r\n" + PLAIN
    )
    account = await store.open("alice@example.com")
    inbox = account.view.folder("INBOX")
    assert inbox is not None
    assert outcome.queue_id == str(inbox.highestmodseq)
    await store.drain()


async def test_tag_names_a_folder_that_exists():
    """+tag sorts only into folders that the owner made; a stranger cannot make any. Case does not matter: addresses have none."""
    store = make_store()
    account = await store.open("alice@example.com")
    await account.create_folder("Lists/Python")
    way = pipeline(store)
    for tag in ("lists/python", "nothing", "archive"):
        assert isinstance(await way.deliver(envelope(f"alice+{tag}@example.com"), PLAIN), Delivered)
    assert [len(await stored(store, "alice@example.com", name)) for name in ("Lists/Python", "INBOX", "Archive")] == [1, 1, 1]
    assert (await store.open("alice@example.com")).view.folder("nothing") is None
    await store.drain()


async def test_several_recipients_go_through_transit():
    """Each gets it exactly once, with its own Delivered-To and nobody else's address."""
    store = make_store()
    account = await store.open("alice@example.com")
    await account.create_folder("Receipts")
    outcome = await pipeline(store).deliver(envelope("alice+receipts@example.com", "bob@example.com", "any@example.org"), PLAIN)
    assert isinstance(outcome, Delivered)
    for _ in range(1000):
        if store.transit_idle():
            break
        await asyncio.sleep(0.001)
    assert store.transit_idle()
    for address, folder in (("alice@example.com", "Receipts"), ("bob@example.com", "INBOX"), ("dave@example.org", "INBOX")):
        (raw,) = await stored(store, address, folder)
        assert raw.endswith(PLAIN)
        assert raw.count(b"\r\nDelivered-To: ") == 1
        assert f"\r\nDelivered-To: {address}\r\n".encode() in raw
        assert b"\tfor <" not in raw
    assert b"X-Original-To: any@example.org" in raw
    await store.drain()


@pytest.mark.case(17)
async def test_forged_results_are_removed_and_others_stay():
    """A filter in the mail program believes Authentication-Results of our name; nobody outside may write one (RFC 8601 §5)."""
    ours = [
        b"Authentication-Results: mx.example.com; dmarc=pass\r\n",
        b"AUTHENTICATION-RESULTS:\r\n\tMX.example.com;\r\n spf=pass\r\n",
        b"Authentication-Results: (hi) mx.example.com 1; dkim=pass\r\n",
        b'Authentication-Results: "mx.example.com"; dkim=pass\r\n',
        b"Authentication-Results : mx.example.com; none\r\n",
    ]
    kept = b"Authentication-Results: mx.elsewhere.example; spf=pass\r\nX-Authentication-Results: mx.example.com; x\r\n"
    for forged in ours:
        store = MemoryStore()
        raw = b"Received: by x; y\r\n" + forged + kept + forged + PLAIN
        assert isinstance(await pipeline(store).deliver(envelope("alice@example.com"), raw), Delivered)
        ((_, result),) = store.account("alice@example.com").messages
        assert result.endswith(b"\r\nReceived: by x; y\r\n" + kept + PLAIN)


def job(raw, **changes) -> Any:
    return Job(envelope("alice@example.com", **changes), raw, CountingEntropy(), 1.0, "date", "mx.example.com")


async def test_submission_is_completed():
    """RFC 6409 §8: Date and Message-ID added once, Bcc gone with its continuation lines, everything else as it was."""
    directory = example_directory()
    login = directory.mailbox("alice@example.com")
    store = MemoryStore()
    way = pipeline(store, submit_steps())
    raw = (
        b"From: alice@example.com\r\nBcc: one@b.example,\r\n two@b.example\r\nReturn-Path: <x@y.example>\r\n"
        b"BCC: three@b.example\r\nSubject: x\r\n\r\nt"
    )
    assert isinstance(await way.deliver(envelope("bob@example.com", login=login), raw), Delivered)
    ((_, result),) = store.account("bob@example.com").messages
    assert result.endswith(b"From: alice@example.com\r\nSubject: x\r\n\r\nt")
    assert b"b.example,\r\n" not in result
    assert result.count(b"\r\nDate: ") == result.count(b"\r\nMessage-ID: <") == 1
    complete = b"From: alice@example.com\r\nDate: x\r\nMessage-ID: <1@b.example>\r\n\r\nt"
    assert isinstance(await way.deliver(envelope("bob@example.com", login=login), complete), Delivered)
    assert store.account("bob@example.com").messages[1][1].count(b"Date: ") == 1


@pytest.mark.case(17)
@pytest.mark.parametrize(
    "header",
    [
        b"From: bob@example.com\r\n",
        b"From: alice@example.com, bob@example.com\r\n",
        b"From: alice@example.com\r\nFrom: bob@example.com\r\n",
        b"From: alice@example.com\r\nSender: bob@example.com\r\n",
        b"From: alice@example.com\r\nResent-From: bob@example.com\r\n",
        b"From: alice@example.com <bob@example.com>\r\n",
        b"From: <alice@example.com> <bob@example.com>\r\n",
        b"From: bob@example.com (alice@example.com)\r\n",
        b"From: group: bob@example.com;\r\n",
        b"From: group:;\r\n",
        b"From: alice@example.com\r\n ,bob@example.com\r\n",
        b"From: \r\n",
        b"From: =?utf-8?q?alice=40example=2Ecom?=\r\n",
        b"Subject: no from\r\n",
        b"From : bob@example.com\r\n",
        b"From: alice@ex\xd0\xb0mple.com\r\n",
    ],
)
async def test_nobody_sends_as_somebody_else(header):
    """All the forms in which programs disagree about whose a message is are refused at submission."""
    directory = example_directory()
    store = MemoryStore()
    way = pipeline(store, submit_steps())
    outcome = await way.deliver(envelope("bob@example.com", login=directory.mailbox("alice@example.com")), header + b"\r\ntext\r\n")
    assert isinstance(outcome, Refuse)
    assert outcome.reason in (reasons.FROM_NOT_OWNED, reasons.FROM_UNREADABLE)
    assert store.commits == 0


@pytest.mark.case(8)
def test_addresses_cannot_break_trace_headers():
    """Whatever passes as an address or a client's name stays on its line."""
    directory: Any = example_directory()
    recipient = LocalRecipient("a\r\nX: y@example.com", directory.mailbox("alice@example.com"), 1, Match.CATCH_ALL)
    one = Envelope("s", "s-1", "smtp", CLIENT._replace(helo="a\r\nX: y"), "a@b.example", recipients=[recipient])
    assert b"\nX:" not in received(one, "mx.example.com", "date")
    with pytest.raises(ValueError, match="line break"):
        delivery_prefix(one, recipient)


async def test_text_without_a_header_stays_text():
    """A message that is only text must not become part of the header that we put above it."""
    store = MemoryStore()
    for raw in (b"just text\r\n", b"", b"\r\ntext\r\n"):
        assert isinstance(await pipeline(store).deliver(envelope("alice@example.com"), raw), Delivered)
    first, second, third = (raw.partition(b"\r\n\r\n") for _, raw in store.account("alice@example.com").messages)
    assert first[2] == b"just text\r\n"
    assert second[1:] == (b"\r\n\r\n", b"")
    assert third[2] == b"text\r\n"


async def test_quota_covers_all_recipients_or_none():
    """One reply stands for all of them, so nothing is stored for those who had room: the client sends again."""
    store = MemoryStore()
    store.account("bob@example.com").used = 10_000_000
    outcome = await pipeline(store).deliver(envelope("alice@example.com", "bob@example.com"), PLAIN)
    assert outcome == Refuse(OVER_QUOTA, "bob@example.com")
    assert store.commits == 0


@pytest.mark.case(13)
async def test_two_pods_at_the_quotas_edge_overshoot_by_one_message():
    """Each pod knows only its own deliveries: many pods would overshoot by a message each, all at once."""
    objects = MemoryObjects(ManualClock())
    pods = [pipeline(make_store(objects)) for _ in range(4)]
    size = 4_000_000
    body = PLAIN + (b"y" * 998 + b"\r\n") * (size // 1000)
    outcomes = await asyncio.gather(*(pod.deliver(envelope("alice@example.com"), body) for pod in pods))
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refuse)]
    assert [outcome.reason for outcome in refused] == [OVER_QUOTA]
    usage = (await make_store(objects).open("alice@example.com")).view.usage
    assert usage.messages == 3
    assert 10_000_000 <= usage.bytes < 10_000_000 + size


@pytest.mark.parametrize("addresses", [("alice@example.com",), ("alice@example.com", "bob@example.com")], ids=["one", "several"])
async def test_account_made_again_elsewhere_takes_the_mail(addresses):
    """A mailbox that was erased and made again would bounce its first mail on every pod that had it open."""
    objects = MemoryObjects(ManualClock())
    here, elsewhere = make_store(objects), make_store(objects)
    letter = envelope(*addresses)
    for recipient in letter.recipients:
        recipient.account = await here.open(recipient.mailbox.address)
    await admin.erase(elsewhere, "alice@example.com")
    await elsewhere.open("alice@example.com")
    assert isinstance(await pipeline(here).deliver(letter, PLAIN), Delivered)
    await here.drain()
    for address in addresses:
        await (await elsewhere.open(address)).refresh()
        assert len(await stored(elsewhere, address)) == 1
    await elsewhere.drain()


async def test_account_erased_for_good_bounces():
    """Mail to a mailbox that is gone from the configuration and erased must not make it anew."""
    objects = MemoryObjects(ManualClock())
    here, elsewhere = make_store(objects), make_store(objects)
    letter = envelope("alice@example.com")
    way = pipeline(here)
    letter.recipients[0].account = await here.open("alice@example.com")
    await admin.erase(elsewhere, "alice@example.com")
    way._services.directory = Directory(example_directory().config, ())
    outcome = await way.deliver(letter, PLAIN)
    assert isinstance(outcome, Refuse)
    assert outcome.reason is ACCOUNT_CLOSED
    assert (await admin.show(elsewhere, "alice@example.com")).closed
    await here.drain()
    await elsewhere.drain()


async def test_folder_that_vanishes_falls_back_to_inbox():
    """A folder deleted in the moment between look-up and commit costs nobody a message."""
    store = MemoryStore()
    account: Any = store.account("alice@example.com")
    original = account.append

    async def append(folder_id, messages, **options) -> Any:
        if folder_id == 2:
            account.folders.pop("Receipts", None)
        return await original(folder_id, messages, **options)

    account.append = append
    assert isinstance(await pipeline(store).deliver(envelope("alice+receipts@example.com"), PLAIN), Delivered)
    assert [folder for folder, _ in account.messages] == ["INBOX"]


async def test_faulty_step_is_a_451():
    """A bug in a filter costs this message a temporary failure; the client keeps it, and the pod lives."""

    async def broken(job, directory) -> Any:
        raise RuntimeError("bug")

    store = MemoryStore()
    outcome = await pipeline(store, [Step("broken", broken)]).deliver(envelope("alice@example.com"), PLAIN)
    assert isinstance(outcome, Refuse)
    assert outcome.reason is reasons.INTERNAL_ERROR
    assert store.commits == 0


async def test_steps_work_on_folded_and_odd_headers():
    """Only whole fields go; neighbours, order and body stay."""
    raw = b"A: 1\r\nAuthentication-Results: mx.example.com;\r\n\tx=y;\r\n z\r\nB: 2\r\n\r\nAuthentication-Results: mx.example.com; body\r\n"
    one = job(raw)
    assert await check_form(one, example_directory()) is None
    assert await remove_forged_results(one, example_directory()) is None
    assert b"".join(one.buffers()) == b"A: 1\r\nB: 2\r\n\r\nAuthentication-Results: mx.example.com; body\r\n"

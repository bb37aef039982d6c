"""POP3 over the real store, on a bucket in memory that several pods share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mailpod.store.types import NewMessage
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.pop3 import Bench, Client
from tests.support.stores import make_store, message

BODIES = (
    message("one", "first\r\n.dotted"),
    message("two", "x" * 300_000),
    b"Subject: odd\r\n\r\n\xff\x80 8bit, no end",
    message("four", "\r\n.\r\n..\r\nend"),
)


class Pods:
    """Several pods on one bucket, each with its POP3 sessions."""

    def __init__(self, count: int = 2) -> None:
        self.clock = ManualClock()
        self.objects = MemoryObjects(self.clock)
        self.stores = [make_store(self.objects, self.clock) for _ in range(count)]
        self.benches = [Bench(store=store) for store in self.stores]

    async def deliver(self, pod: int, *raws: bytes, folder: str = "INBOX") -> None:
        account = await self.stores[pod].open("alice@example.com")
        found = account.view.folder(folder)
        assert found is not None
        await account.append(found.id, [NewMessage(raw) for raw in raws])

    async def account(self, pod: int) -> Any:
        return await self.stores[pod].open("alice@example.com")

    async def login(self, pod: int) -> Client:
        return await self.benches[pod].login()


def wire_form(raw: bytes) -> bytes:
    text = raw if raw.endswith(b"\r\n") else raw + b"\r\n"
    return text.replace(b"\r\n.", b"\r\n..") + b".\r\n"


async def test_every_byte_from_any_pod() -> None:
    """What one pod took, the other hands out, byte for byte; only INBOX is the maildrop."""
    pods = Pods()
    await pods.deliver(0, *BODIES)
    await pods.deliver(0, b"not here\r\n", folder="Junk")
    client = await pods.login(1)
    assert await client.say("STAT\r\n") == b"+OK 4 %d\r\n" % sum(map(len, BODIES))
    for number, raw in enumerate(BODIES, 1):
        assert await client.say(f"RETR {number}\r\n") == b"+OK %d octets\r\n" % len(raw) + wire_form(raw)
    assert (await client.say("TOP 1 1\r\n")).endswith(b"\r\n\r\nfirst\r\n.\r\n")


@pytest.mark.case(22)
async def test_two_sessions_on_two_pods_delete_once() -> None:
    """Both see the same messages to the end; both delete message 1; it goes once, and nothing else does."""
    pods = Pods()
    await pods.deliver(0, *BODIES)
    first, second = await pods.login(0), await pods.login(1)
    uidls = await first.say("UIDL\r\n")
    assert await second.say("UIDL\r\n") == uidls
    assert (await first.say("DELE 1\r\nDELE 2\r\nQUIT\r\n")).endswith(b"Bye, 2 messages removed\r\n")
    await pods.deliver(0, message("new"))
    assert await second.say("UIDL\r\n") == uidls
    assert await second.say("RETR 2\r\n") == b"+OK %d octets\r\n" % len(BODIES[1]) + wire_form(BODIES[1])
    assert (await second.say("DELE 1\r\nDELE 3\r\nQUIT\r\n")).endswith(b"Bye, 1 messages removed\r\n")
    third = await pods.login(0)
    left = (await third.say("UIDL\r\n")).split(b"\r\n")
    assert left[0] == b"+OK 2 messages"
    assert left[1].split()[1] == uidls.split(b"\r\n")[4].split()[1]
    assert left[2].split()[1] not in uidls


async def test_what_imap_expunges_stays_readable_here() -> None:
    """The view is taken at login: a message removed by another client meanwhile is still handed out, and QUIT skips it."""
    pods = Pods()
    await pods.deliver(0, *BODIES)
    client = await pods.login(0)
    account = await pods.account(1)
    view = await account.refresh()
    inbox = view.folder("INBOX")
    await account.expunge(inbox.id, np.array(inbox.uids()[:1], dtype=np.uint32), deleted_only=False)
    assert await client.say("RETR 1\r\n") == b"+OK %d octets\r\n" % len(BODIES[0]) + wire_form(BODIES[0])
    assert (await client.say("DELE 1\r\nQUIT\r\n")).endswith(b"Bye, 0 messages removed\r\n")
    assert await (await pods.login(1)).say("STAT\r\n") == b"+OK 3 %d\r\n" % sum(map(len, BODIES[1:]))


async def test_update_is_one_commit() -> None:
    """QUIT with many deletions writes one object."""
    pods = Pods(1)
    await pods.deliver(0, *[message(f"m{i}") for i in range(50)])
    client = await pods.login(0)
    await client.say("".join(f"DELE {i}\r\n" for i in range(1, 50)))
    before = pods.objects.requests["create"]
    assert (await client.say("QUIT\r\n")).endswith(b"Bye, 49 messages removed\r\n")
    assert pods.objects.requests["create"] == before + 1


async def test_going_through_many_small_messages() -> None:
    """A whole maildrop in order, with what is fetched ahead, byte for byte."""
    raws = [message(f"m{i}", "y" * (i * 53 % 3000)) for i in range(120)]
    pods = Pods()
    await pods.deliver(0, *raws)
    client = await pods.login(1)
    for number, raw in enumerate(raws, 1):
        assert await client.say(f"RETR {number}\r\n") == b"+OK %d octets\r\n" % len(raw) + wire_form(raw)

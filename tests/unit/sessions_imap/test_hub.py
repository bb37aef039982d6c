"""Pushing to sessions that idle: rendered once, in turns, at the speed of each client."""

from __future__ import annotations

import asyncio
import itertools

from mailpod.limits import imap_session as limits
from mailpod.sessions.imap import news
from mailpod.store.facade import Account
from mailpod.store.types import NewMessage
from tests.support.imap import ALICE, make_pods


def _inbox(account: Account) -> int:
    folder = account.view.folder("INBOX")
    assert folder is not None
    return folder.id


async def _idlers(pod, count: int):
    clients = [await pod.login(select="INBOX") for _ in range(count)]
    for client in clients:
        assert await client.raw(b"i IDLE\r\n") == b"+ idling\r\n"
    return clients


async def test_news_are_rendered_once_for_all(monkeypatch):
    """A thousand phones on a team's mailbox would cost a thousand renderings for each message."""
    (pod,), _ = make_pods(1)
    clients = await _idlers(pod, 60)
    rendered = []
    real = news.lines

    def counting(*args):
        rendered.append(args)
        return real(*args)

    monkeypatch.setattr(news, "lines", counting)
    writer = await pod.login()
    await writer.append(b"X: 1\r\n\r\n")
    assert len(rendered) == 1
    assert [client.take() for client in clients] == [b"* 1 EXISTS\r\n"] * 60


async def test_others_get_their_turn_between_pushes():
    """While a thousand sessions are told, nobody else would be served."""
    (pod,), _ = make_pods(1)
    clients = await _idlers(pod, 60)
    account = await pod.services.store.open(ALICE)
    told_by_turn = []
    task = asyncio.ensure_future(account.append(_inbox(account), [NewMessage(b"X: 1\r\n\r\n")]))
    for _ in range(200):
        await asyncio.sleep(0)
        told_by_turn.append(sum(bool(client.wire.output) for client in clients))
    await task
    assert told_by_turn[-1] == 60
    steps = [after - before for before, after in itertools.pairwise(told_by_turn)]
    assert max(steps) == limits.PUSH_SESSIONS_PER_TURN


async def test_no_task_while_idle():
    """Each idle session would cost memory for a task that waits for nothing (PERFORMANCE.md, Sessions)."""
    (pod,), clock = make_pods(1)
    before = len(asyncio.all_tasks())
    clients = await _idlers(pod, 20)
    assert len(asyncio.all_tasks()) == before + 1  # the pod's one refresh
    for client in clients:
        await client.raw(b"DONE\r\n")
    clock.advance(limits.REFRESH_TICK_S)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before


async def test_a_slow_idler_catches_up_by_itself():
    """What happened while a phone's line was down would be lost to it, or pile up in the pod."""
    (pod,), _ = make_pods(1)
    slow, quick = await _idlers(pod, 2)
    slow.wire.congest(True)
    writer = await pod.login(select="INBOX")
    for _ in range(3):
        await writer.append(b"X: 1\r\n\r\n")
    await writer.ok("STORE 2 +FLAGS (\\Deleted)")
    await writer.ok("EXPUNGE")
    assert slow.take() == b""
    assert quick.take().endswith(b"* 2 EXPUNGE\r\n")
    slow.send(b"DONE\r\n")
    slow.wire.congest(False)
    await slow.settle()
    assert slow.take() == b"* 2 EXISTS\r\ni OK Idle completed\r\n"


async def test_large_news_go_out_in_pieces():
    """A flag change on a whole folder would be held in memory for every phone that idles."""
    (pod,), _ = make_pods(1)
    account = await pod.services.store.open(ALICE)
    count = limits.PUSH_LINES_MAX * 3
    for start in range(0, count, 2000):
        await account.append(_inbox(account), [NewMessage(b"X: %d\r\n\r\n" % n) for n in range(start, start + 2000)])
    clients = await _idlers(pod, 3)
    writer = await pod.login(select="INBOX")
    await writer.ok("STORE 1:* +FLAGS.SILENT (\\Seen)")
    for client in clients:
        await client.settle()
        assert client.take().count(b"FETCH (FLAGS (\\Seen))\r\n") == count
        assert await client.raw(b"DONE\r\n") == b"i OK Idle completed\r\n"


async def test_idle_sees_other_pods_within_a_minute():
    """Two phones on two pods would show different folders until one of them is touched."""
    (near, far), clock = make_pods(2)
    (idler,) = await _idlers(near, 1)
    writer = await far.login()
    await writer.append(b"X: 1\r\n\r\n")
    for _ in range(int(limits.REFRESH_IDLE_S / limits.REFRESH_TICK_S) + 1):
        clock.advance(limits.REFRESH_TICK_S)
        await idler.settle()
    assert idler.take() == b"* 1 EXISTS\r\n"


async def test_a_deleted_folder_ends_idle():
    """A session would idle for ever on a folder that is gone."""
    (pod,), _ = make_pods(1)
    client = await pod.login()
    await client.ok("CREATE Temp")
    await client.ok("SELECT Temp")
    await client.raw(b"i IDLE\r\n")
    other = await pod.login()
    await other.ok("DELETE Temp")
    await client.settle()
    assert client.take().startswith(b"* BYE")
    assert client.wire.closed

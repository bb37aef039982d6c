"""FETCH gives back what was stored, byte for byte, in bounded memory; and what it can't give, it says honestly."""

from __future__ import annotations

import asyncio
import random
import re

import pytest

from mailpod.errors import Corrupt, Refused, StoreUnavailable
from mailpod.limits import imap_session as limits
from mailpod.store.reasons import EXPUNGED
from tests.support.imap import make_pods

UGLY = {
    "empty header": b"\r\nbody only\r\n",
    "no body": b"Subject: x\r\n",
    "no end of header": b"Subject: x\r\nFrom: y",
    "bare line feeds": b"Subject: x\n\nline\nline\n",
    "bare carriage returns": b"Subject: x\r\n\r\na\rb\r\rc\r\n",
    "eight bits": b"Subject: \xff\xfe\xc3\r\n\r\n\x80\x81\xe2\x28\r\n",
    "torn multipart": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
    b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n",
    "boundary in header": b'Content-Type: multipart/mixed; boundary="--b--"\r\n\r\n----b--\r\n\r\n----b----\r\n',
    "brackets and braces": b"Subject: {10}\r\n\r\n* 1 FETCH (BODY[] {3}\r\n)\r\na1 OK\r\n{5+}\r\n",
    "one byte": b"x",
    "dots": b"Subject: x\r\n\r\n.\r\n..\r\n.\r\n",
    "long line": b"Subject: " + b"y" * 200_000 + b"\r\n\r\nz\r\n",
}


def literals(output: bytes) -> list[bytes]:
    """The literals of an answer, by their announced lengths."""
    found, position = [], 0
    while match := re.compile(rb"\{(\d+)\}\r\n").search(output, position):
        found.append(output[match.end() : match.end() + int(match[1])])
        position = match.end() + int(match[1])
    return found


@pytest.fixture
async def pods():
    made, _ = make_pods()
    return made


@pytest.mark.case(7)
@pytest.mark.parametrize("name", UGLY)
async def test_ugly_mail_comes_back_as_it_was(pods, name):
    """A signature would not verify, or a client would lose its place in the stream, over mail that is merely ugly."""
    raw = UGLY[name]
    client = await pods[0].login()
    assert b" OK " in await client.append(raw)
    other = await pods[1].login(select="INBOX")
    assert literals(await other.ok("FETCH 1 BODY.PEEK[]")) == [raw]
    assert b"RFC822.SIZE %d " % len(raw) in await other.ok("FETCH 1 (RFC822.SIZE BODYSTRUCTURE ENVELOPE)")
    assert b"".join(literals(await other.ok("FETCH 1 (BODY.PEEK[HEADER] BODY.PEEK[TEXT])"))) == raw
    pieces = [literals(await other.ok(f"FETCH 1 BODY.PEEK[]<{start}.997>"))[0] for start in range(0, min(len(raw), 5000), 997)]
    assert b"".join(pieces) == raw[: 997 * len(pieces)]


@pytest.mark.case(7)
async def test_many_messages_at_once_are_the_same(pods):
    """Reading ahead could mix up messages, or hand one out under another's number."""
    chance = random.Random(5)
    messages = [b"Subject: %d\r\n\r\n" % number + chance.randbytes(chance.randrange(1, 3000)).replace(b"\0", b"0") for number in range(60)]
    client = await pods[0].login()
    for message in messages:
        await client.append(message)
    other = await pods[1].login(select="INBOX")
    output = await other.ok("UID FETCH 1:* (BODY.PEEK[] FLAGS)")
    assert literals(output) == messages
    assert literals(await other.ok("FETCH 5,9,7 (BODY.PEEK[HEADER] UID)")) == [b"Subject: %d\r\n\r\n" % n for n in (4, 6, 8)]
    assert [
        int(uid) for uid in re.findall(rb"\* \d+ FETCH \(FLAGS \([^)]*\) UID (\d+)|\* \d+ FETCH \(UID (\d+)", output) for uid in uid if uid
    ] == list(range(1, 61))


async def test_nul_needs_a_literal8(pods):
    """RFC 3516 §4.4: a message with NUL would break clients that never said that they can take it."""
    client = await pods[0].login(select="INBOX")
    assert b" NO [UNKNOWN-CTE]" in await client.append(b"Subject: x\r\n\r\n\0\r\n")
    assert b" OK " in await client.command(b"APPEND INBOX ~{17+}\r\nSubject: x\r\n\r\n\0\r\n")
    assert literals(await client.ok("FETCH 1 BODY.PEEK[]")) == [b"Subject: x\r\n\r\n\0\r\n"]


@pytest.fixture
async def large(pods):
    """A message of several ranges, and a client with its folder open."""
    raw = b"Subject: large\r\n\r\n" + random.Random(1).randbytes(3 * 1024 * 1024).replace(b"\0", b"0")
    client = await pods[0].login()
    await client.append(raw)
    return raw, await pods[0].login(select="INBOX")


async def test_large_messages_are_sent_in_ranges(large):
    """A pod would hold whole messages for slow clients, and run out of memory with a few of them."""
    raw, client = large
    assert literals(await client.ok("FETCH 1 (UID BODY.PEEK[])")) == [raw]
    assert client.wire.largest_write <= limits.FETCH_PART_BYTES + limits.WRITE_BYTES_MAX


async def test_a_slow_reader_stops_the_reading(large):
    """The answer to one FETCH would pile up in the pod's memory as fast as the bucket gives it."""
    raw, client = large
    client.wire.congest(True)
    before = client.wire.written
    client.send(b"t9 FETCH 1 BODY.PEEK[]\r\n")
    for _ in range(200):
        await asyncio.sleep(0)
    assert client.busy
    assert client.wire.written - before <= 2 * limits.FETCH_PART_BYTES
    client.wire.congest(False)
    await client.settle()
    assert literals(client.take()) == [raw]


async def test_seen_is_one_commit_and_told_once(pods):
    """Opening a folder of unread mail would cost a PUT for each message."""
    client = await pods[0].login()
    for number in range(5):
        await client.append(b"Subject: %d\r\n\r\n" % number, options="(\\Seen) " if number == 2 else "")
    reader = await pods[0].login(select="INBOX")
    account = await pods[0].services.store.open("alice@example.com")
    before = account.view.seq
    output = await reader.ok("FETCH 1:* (BODY[])")
    assert account.view.seq == before + 1
    assert [int(n) for n in re.findall(rb"\* (\d+) FETCH \(FLAGS \(\\Seen\)\)", output)] == [1, 2, 4, 5]
    assert b"FLAGS" not in await reader.ok("FETCH 1:* (BODY[])")
    assert account.view.seq == before + 1


def _failing(monkeypatch, view, error, *, after: int) -> None:
    """Reads of `view`'s kind fail from the byte `after` on."""
    real = type(view).read

    async def read(self, row, start=0, length=None):
        if start >= after:
            raise error
        return await real(self, row, start, length)

    monkeypatch.setattr(type(view), "read", read)


@pytest.mark.case(26)
@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (StoreUnavailable("away"), b" NO [UNAVAILABLE]"),
        (Corrupt("crc"), b" NO [SERVERBUG]"),
        (Refused(EXPUNGED), b" NO [EXPUNGEISSUED]"),
    ],
    ids=["unavailable", "corrupt", "expunged"],
)
async def test_a_body_that_can_not_be_had_is_an_honest_no(large, monkeypatch, error, answer):
    """A client would store an empty or torn message as if that were what was sent."""
    _, client = large
    _failing(monkeypatch, client.session.selected.view, error, after=0)
    output = await client.command("FETCH 1 BODY.PEEK[]")
    assert answer in output
    assert b"{" not in output
    monkeypatch.undo()
    await client.ok("NOOP")


async def test_a_literal_that_breaks_ends_the_connection(large, monkeypatch):
    """Anything put in place of the missing bytes would be taken for mail."""
    raw, client = large
    _failing(monkeypatch, client.session.selected.view, StoreUnavailable("away"), after=limits.FETCH_PART_BYTES)
    client.send(b"t9 FETCH 1 BODY.PEEK[]\r\n")
    await client.settle()
    output = client.take()
    assert client.wire.closed
    announced = output.index(b"{%d}\r\n" % len(raw)) + len(b"{%d}\r\n" % len(raw))
    assert raw.startswith(output[announced:])
    assert not re.search(rb"t9 (OK|NO|BAD)", output)


async def test_sections_of_large_messages(large):
    """Headers and partial fetches of a large message would read all of it, or the wrong part."""
    raw, client = large
    assert literals(await client.ok("FETCH 1 (BODY.PEEK[HEADER] BODY.PEEK[HEADER.FIELDS (SUBJECT)])")) == [b"Subject: large\r\n\r\n"] * 2
    middle = 2 * 1024 * 1024
    assert literals(await client.ok(f"FETCH 1 BODY.PEEK[]<{middle}.100000>")) == [raw[middle : middle + 100_000]]
    assert literals(await client.ok(f"FETCH 1 BODY.PEEK[TEXT]<{len(raw)}.10>")) == [b""]
    assert literals(await client.ok("FETCH 1 BINARY.PEEK[1]")) == [raw[18:]]

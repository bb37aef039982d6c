"""The whole summary: sort keys, ids, dates, and that it is small and quick."""

import time
from pathlib import Path

import msgspec
import pytest

from mailpod.limits import message as limits
from mailpod.message import Summary, summarize
from mailpod.message.summarize import behind_prefix

RAW = (
    b"From: =?utf-8?Q?Alice_=C3=84?= <Alice@example.com>\r\n"
    b"To: Bob <BOB@example.org>, carol@example.net\r\n"
    b"Cc: Dave <dave@example.net>\r\n"
    b"Bcc: Erin <erin@example.net>\r\n"
    b"Subject: Re: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"Date: Tue, 24 Nov 2026 09:31:05 +0100\r\n"
    b"Message-ID: <one@example.com>\r\n"
    b"References: <r1@example.com>\r\n <r2@example.com>\r\nIn-Reply-To: <r3@example.com> (x)\r\n\r\nHello.\r\n"
)


def test_fields():
    """Each column that SORT, THREAD, SEARCH and PREVIEW read."""
    found = summarize(RAW)
    assert found.subject == "Re: Grüße"
    assert (found.base_subject, found.is_reply) == ("grüsse", True)
    assert (found.from_, found.to, found.cc) == ("alice", "bob", "dave")
    assert (found.sent_at, found.sent_zone_minutes) == (1_795_509_065, 60)
    assert found.message_id == "one@example.com"
    assert found.references == ("r1@example.com", "r2@example.com")
    assert found.from_text == "Alice Ä <Alice@example.com>"
    assert found.to_text == "Bob <BOB@example.org>, carol@example.net"
    assert found.bcc_text == "Erin <erin@example.net>"
    assert found.preview == "Hello."
    assert found.header_size == RAW.index(b"Hello")


def test_references_fall_back_to_in_reply_to():
    """RFC 5256 §3: the first id of In-Reply-To, where References has none."""
    raw = RAW.replace(b"References:", b"X-References:")
    assert summarize(raw).references == ("r3@example.com",)
    assert summarize(b"In-Reply-To: your message of Tuesday\r\n\r\n").references == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"<a@b>", "a@b"),
        (b"a@b", "a@b"),
        (b"", ""),
        (b"<>", ""),
        (b"<a b@c> <d@e>", "d@e"),
        (b"(c) <a@b> x", "a@b"),
        (b"<" + b"x" * 2000 + b">", "x" * 997),
    ],
)
def test_message_ids(value, expected):
    """Ids without brackets, broken ones as well as they can be told."""
    assert summarize(b"Message-ID: " + value + b"\r\n\r\n").message_id == expected


@pytest.mark.case(12)
def test_references_are_bounded():
    """10,000 references: the thread's root and the newest are kept."""
    raw = b"References:" + b"".join(b"\r\n <%d@x>" % n for n in range(10_000)) + b"\r\n\r\n"
    found = summarize(raw).references
    assert len(found) == limits.REFERENCES_MAX
    assert found[0] == "0@x"
    assert found[-1] == "9999@x"


@pytest.mark.case(5)
@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"To: user%d@example.com\r\n" % n for n in range(100_000)),
        b"To: " + b", ".join(b"user%d@example.com" % n for n in range(100_000)) + b"\r\n",
        b"X: " + b"y" * 50_000_000 + b"\r\n",
        b"X: y\r\n" * 1_000_000,
        b"Subject: " + b"=?utf-8?Q?a?= " * 100_000 + b"\r\n",
        b"Subject:" + b"\r\n x" * 1_000_000,
    ],
    ids=["many-fields", "one-field", "50-MB-line", "million-fields", "encoded-words", "folds"],
)
def test_huge_headers(head):
    """Headers of any size, already stored (APPEND, an older limit): the summary is bounded and costs under a second."""
    start = time.process_time()
    found = summarize(head + b"\r\nbody")
    assert time.process_time() - start < 1
    assert len(msgspec.msgpack.encode(found)) < 2_000_000


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "corpus").glob("*.eml")), ids=lambda path: path.stem)
def test_trace_fields_only_move_offsets(path):
    """One scan for all recipients: behind a prefix of trace fields the summary is the one that a scan of those bytes gives."""
    raw = path.read_bytes()
    prefix = b"Return-Path: <a@example.com>\r\nDelivered-To: b@example.org\r\nReceived: from x\r\n\tby y; z\r\n"
    assert behind_prefix(summarize(raw), len(prefix)) == summarize(prefix + raw)
    assert behind_prefix(summarize(raw), 0) == summarize(raw)


def test_survives_the_store():
    """The store keeps summaries as msgpack arrays; an older one, with fewer fields, is still read."""
    found = summarize(RAW)
    packed = msgspec.msgpack.encode(found)
    assert msgspec.msgpack.decode(packed, type=Summary) == found
    shorter = msgspec.msgpack.encode(msgspec.msgpack.decode(packed)[:-1])
    assert msgspec.msgpack.decode(shorter, type=Summary).sent_zone_minutes == 0

"""The scanner against the standard library's parser, and against mail that is made to hurt."""

import email
import email.policy
import time
from email.message import Message

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits import message as limits
from mailpod.message import summarize
from mailpod.message.scan import parts, scan
from mailpod.message.text import decode_transfer

_BOUNDARY = st.text("abcdefgh123'()+_,-./:=?", min_size=1, max_size=20).filter(lambda text: text.strip() == text)
_LINE = st.binary(max_size=30).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"").replace(b"--", b"==").lstrip(b"-"))
_BODY = st.lists(_LINE, max_size=6).map(b"\r\n".join)
_LEAF = st.tuples(
    st.sampled_from([b"text/plain", b"text/html; charset=utf-8", b"application/pdf; name=x.pdf", b"image/png"]),
    st.sampled_from([b"", b"7bit", b"8bit"]),
    _BODY,
)


def _leaf(drawn):
    media_type, encoding, body = drawn
    header = b"Content-Type: " + media_type + b"\r\n"
    if encoding:
        header += b"Content-Transfer-Encoding: " + encoding + b"\r\n"
    return header, body


def _multipart(drawn):
    children, number, preamble = drawn
    boundary = b"=_%d_%d" % (number, len(children))
    body = preamble
    for header, content in children:
        body += b"\r\n--" + boundary + b"\r\n" + header + b"\r\n" + content
    return b'Content-Type: multipart/mixed; boundary="%s"\r\n' % boundary, body + b"\r\n--" + boundary + b"--\r\n"


def _embedded(drawn):
    header, body = drawn
    return b"Content-Type: message/rfc822\r\n", b"From: alice@example.com\r\nSubject: inner\r\n" + header + b"\r\n" + body


_TREE = st.recursive(
    _LEAF.map(_leaf),
    lambda inner: st.one_of(
        st.tuples(st.lists(inner, min_size=1, max_size=4), st.integers(0, 10**9), st.sampled_from([b"", b"a preamble"])).map(_multipart),
        inner.map(_embedded),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(_TREE)
def test_like_the_standard_library(tree):
    """Well-formed mail has the same parts, types and contents in both parsers: else attachments get lost or mixed up."""
    header, body = tree
    raw = b"From: alice@example.com\r\nMIME-Version: 1.0\r\n" + header + b"\r\n" + body
    theirs = list(_walk(email.message_from_bytes(raw, policy=email.policy.compat32)))
    ours = scan(raw)
    assert ours.truncated == ""
    flat = parts(ours)
    assert [part.media_type for part in flat] == [message.get_content_type() for message in theirs]
    for part, message in zip(flat, theirs, strict=True):
        if not part.kind:
            payload = message.get_payload(decode=True)
            assert isinstance(payload, bytes)
            assert decode_transfer(raw[part.body_start : part.body_end], part.encoding) == payload


def _walk(message: Message):
    yield message
    if message.is_multipart():
        for child in message.get_payload():
            assert isinstance(child, Message)
            yield from _walk(child)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"Content-Type: multipart/mixed; boundary=a\r\n",
                b'Content-Type: multipart/digest; boundary="a-b"\n',
                b"Content-Type: message/rfc822\r\n",
                b"Content-Type: text/html; charset*0=ut; charset*1=f-8\r\n",
                b"Content-Type",
                b": \r\n",
                b"\r\n",
                b"\n",
                b"\r",
                b"--a\r\n",
                b"--a--\r\n",
                b"--a-b",
                b"--a-b--\r\n",
                b"\0",
                b"\xff\xfe",
                b" folded\r\n",
                b"From: a <b@c>, (((\r\n",
                b"x" * 80,
            ]
        ),
        max_size=40,
    ).map(b"".join)
)
def test_anything_has_a_tree(raw):
    """Whatever was stored can be listed: no bytes make the scanner or a renderer raise."""
    summary = summarize(raw)
    assert msgspec.msgpack.encode(summary)
    assert summary.parts[0].body_end == len(raw)
    assert summary.envelope.startswith(b"(")
    paths = [part.path for part in summary.parts]
    assert len(paths) == len(set(paths))
    for part in summary.parts:
        assert 0 <= part.header_start <= part.body_start <= part.body_end <= len(raw)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(raw):
    """The same for bytes that are no mail at all; and the store can encode what comes out."""
    assert msgspec.msgpack.encode(summarize(raw))
    assert summarize(raw).parts[0].body_end == len(raw)


def _cost(raw: bytes):
    start = time.process_time()
    summary = summarize(raw)
    return summary, time.process_time() - start


def _nested(depth: int) -> bytes:
    head = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return head + b"\r\ninnermost\r\n" + b"".join(b"--b%d--\r\n" % n for n in reversed(range(depth)))


@pytest.mark.case(6)
def test_thousand_deep():
    """1,000 nested multiparts: listed down to the limit, in bounded time, and below it as one opaque part."""
    summary, seconds = _cost(_nested(1000))
    assert len(summary.parts) == limits.MIME_DEPTH_MAX + 1
    assert summary.parts[-1].media_type == "application/octet-stream"
    assert summary.bodystructure.count(b"multipart") == 0
    assert seconds < 1


@pytest.mark.case(6)
def test_ten_thousand_parts():
    """10,000 parts: as many as the limit allows are listed, the last holds the rest, and nothing of the bytes is out of reach."""
    raw = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\npart\r\n" * 10_000 + b"--x--\r\n"
    summary, seconds = _cost(raw)
    assert len(summary.parts) == limits.MIME_PARTS_MAX
    assert summary.parts[-1].body_end == len(raw)
    assert seconds < 1


@pytest.mark.case(6)
def test_message_in_itself():
    """message/rfc822 within message/rfc822, 10,000 times: bounded, and the structure can be fetched."""
    summary, seconds = _cost(b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + b"end")
    assert len(summary.parts) == limits.MIME_DEPTH_MAX + 1
    assert len(summary.bodystructure) < 200 * limits.MIME_DEPTH_MAX
    assert seconds < 1


@pytest.mark.case(6)
def test_ten_thousand_parameters():
    """10,000 RFC 2231 continuations: bounded, in one Content-Type and in a file name."""
    pieces = b"".join(b";\r\n name*%d*=%%41" % n for n in range(10_000))
    summary, seconds = _cost(b"Content-Type: text/plain" + pieces + b"\r\nContent-Disposition: attachment" + pieces + b"\r\n\r\nx")
    assert len(summary.bodystructure) < 4_000
    assert seconds < 1


@pytest.mark.case(6)
@pytest.mark.parametrize(
    "filler",
    [b"\n--b", b"\n--b0 x", b"\n--b99 \r\r", b"\n", b"\r\n\r\n", b"\n--", b"a"],
    ids=["prefix", "almost", "innermost", "line-feeds", "blank-lines", "dashes", "letters"],
)
def test_deep_and_large(filler):
    """100 open boundaries over 2 MB made to look like them: the work is capped, not multiplied."""
    size = 2 * 1024 * 1024
    raw = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(99))
    summary, seconds = _cost(raw + b"\r\n" + filler * (size // len(filler)))
    assert summary.parts[0].body_end >= size
    assert seconds < 3


@pytest.mark.case(6)
def test_many_siblings_with_boundaries_that_never_come():
    """Each of 1,500 multiparts looks for its own boundary in its own range only."""
    raw = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"".join(
        b"--x\r\nContent-Type: multipart/mixed; boundary=y%d\r\n\r\nnothing\r\n" % n for n in range(1500)
    )
    summary, seconds = _cost(raw + b"z" * 2_000_000)
    assert len(summary.parts) == 1501
    assert seconds < 1


def test_headers_of_very_many_parts_are_capped():
    """Parts whose headers are large count as plain text once the message's share is used up; they are still there."""
    header = b"Content-Type: text/html\r\nX-Filler: " + b"y" * 60_000 + b"\r\n\r\n"
    raw = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + (b"--x\r\n" + header + b"hi\r\n") * 100
    tree = scan(raw)
    assert tree.truncated == "headers"
    flat = parts(tree)
    assert len(flat) == 101
    assert flat[1].media_type == "text/html"
    assert flat[-1].media_type == "text/plain"


def test_line_counts_share_one_pass():
    """The lines of a message/rfc822 part are those of header and body together (Dovecot's count), nested ones included."""
    raw = b"Content-Type: message/rfc822\r\n\r\nSubject: a\r\n\r\none\r\ntwo\r\n"
    tree = scan(raw)
    assert [node.lines for node in tree.nodes] == [4, 2]


def test_line_counts_of_large_bodies():
    """Bodies over a megabyte are counted in chunks."""
    raw = b"Subject: x\r\n\r\n" + b"line\r\n" * 400_000
    assert scan(raw).root.lines == 400_000

"""Readable text: transfer encodings, HTML, previews, what SEARCH sees."""

import base64
import quopri
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits import message as limits
from mailpod.message import summarize
from mailpod.message.text import decode_transfer, field_text, header_text, html_to_text, part_text, search_text


def _mail(body: bytes, media_type: bytes = b"text/plain; charset=utf-8", encoding: bytes = b"8bit") -> bytes:
    return b"Content-Type: " + media_type + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_transfer_encodings(data):
    """BINARY[…] and previews give what the sender encoded."""
    assert decode_transfer(base64.encodebytes(data).replace(b"\n", b"\r\n"), "base64") == data
    assert decode_transfer(data, "8bit") == data
    text = data.replace(b"\r", b"").replace(b"\n", b"")
    assert decode_transfer(quopri.encodestring(text), "quoted-printable") == text


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"QUJD", "base64", b"ABC"),
        (b"QUI", "base64", b"AB"),  # no padding
        (b"QUJDR", "base64", b"ABC"),  # cut off
        (b"Q!U*J\r\nD", "base64", b"ABC"),
        (b"a=20b=\r\nc=3", "quoted-printable", b"a bc=3"),
        (b"a  \r\nb", "quoted-printable", b"a\r\nb"),  # RFC 2045 §6.7 rule 3
        (b"x", "x-unknown", None),
        (b"x", "", b"x"),
    ],
)
def test_damaged_encodings(data, encoding, expected):
    """What can be had of a damaged part is given; an unknown encoding is said to be unknown (RFC 3516)."""
    assert decode_transfer(data, encoding) == expected


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.binary(max_size=80), st.text("QUJD=+/ \r\n!", max_size=60).map(str.encode)),
    st.sampled_from(["base64", "quoted-printable"]),
)
def test_decoding_never_fails_and_never_grows(data, encoding):
    """Any bytes; and no decoder makes more of them (nothing to bomb with)."""
    decoded = decode_transfer(data, encoding)
    assert decoded is not None
    assert len(decoded) <= len(data)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>Hello <b>Bob</b></p>", "Hello Bob"),
        ("<html><head><title>No</title></head><body>Yes</body></html>", "Yes"),
        ("<style>p{x:y}</style>a<script>if (1</b) x</script>b", "ab"),
        ("a<br>b<br/>c", "a b c"),
        ("1 &lt; 2 &amp;&nbsp;3", "1 < 2 & 3"),
        ("a <!-- hidden > --> b", "a b"),
        ("a < b", "a < b"),
        ("<p", ""),
        ("<!DOCTYPE html>x", "x"),
        ("<script>never closed", ""),
        ("x<!-- never closed", "x"),
        ("<STYLE>a</STYLE>b", "b"),
        ("in<i>fix</i>ed", "infixed"),
    ],
)
def test_html(source, text):
    """Tags go, what is not shown goes, words stay apart or together as on the screen."""
    assert " ".join(html_to_text(source, 1000).split()) == text


@pytest.mark.case(14)
@pytest.mark.parametrize("unit", ["<", "<a", "<!--", "<script>", "</", "<a>", "&", "&amp;", "<style></x", "<!", "a<b ", "&#1;"])
def test_html_is_linear_and_capped(unit):
    """300 KB of anything repeated: bounded output, bounded time."""
    start = time.process_time()
    text = html_to_text(unit * (300_000 // len(unit)), 10_000)
    assert time.process_time() - start < 2
    assert len(text) <= 2_000_000


@pytest.mark.parametrize(
    ("raw", "preview"),
    [
        (_mail(b"Hello\r\n\r\n  Bob,\tdear\r\n"), "Hello Bob, dear"),
        (_mail("Grüße".encode()), "Grüße"),
        (_mail(base64.b64encode(b"Hello again"), encoding=b"base64"), "Hello again"),
        (_mail(b"a=C3=BC=\r\nb", encoding=b"quoted-printable"), "aüb"),
        (_mail(b"<style>" + b"x" * 9000 + b"</style><p>late text", b"text/html"), "late text"),
        (_mail(b"> quoted\r\nmine\r\n> more\r\n"), "mine"),
        (_mail(b"> only quoted\r\n"), "> only quoted"),
        (_mail(b"a\0b\x07c\xe2\x80\x8bd"), "abcd"),
        (_mail(b"binary", b"application/pdf"), ""),
        (b"", ""),
        (_mail(b"\xe4\xf6", b"text/plain; charset=iso-8859-1"), "äö"),
        (_mail(b"x", b"text/plain; charset=nonsense"), "x"),
    ],
)
def test_preview(raw, preview):
    """RFC 8970: the first words, not the markup and not what is quoted."""
    assert summarize(raw).preview == preview


def test_preview_is_short_and_prefers_text():
    """At most 200 characters; text/plain before HTML; an attached text file is not the message."""
    assert len(summarize(_mail(b"word " * 1000)).preview) == 199
    raw = (
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n"
        b"Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nattached\r\n"
        b"--x\r\nContent-Type: text/html\r\n\r\n<p>rich</p>\r\n--x\r\nContent-Type: text/plain\r\n\r\nplain\r\n--x--\r\n"
    )
    assert summarize(raw).preview == "plain"


@pytest.mark.case(14)
def test_a_preview_reads_little():
    """A 30 MB text part costs no more than a small one."""
    raw = _mail(b"QUJD" * 8_000_000, encoding=b"base64")
    start = time.process_time()
    summary = summarize(raw)
    assert time.process_time() - start < 1
    assert summary.preview.startswith("ABCABC")


def test_search_text():
    """SEARCH BODY finds words in decoded text of any part, also inside a forwarded message, without regard to case."""
    raw = (
        b"Subject: top\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.b64encode(b"Hidden WORD")
        + b"\r\n--x\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>GR\xc3\x9cSSE</p>\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"
        b"Subject: =?utf-8?Q?Inn=C3=A9r?=\r\n\r\ndeep\r\n--x\r\nContent-Type: application/pdf\r\n\r\nsecret\r\n--x--\r\n"
    )
    text = search_text(raw, summarize(raw).parts)
    for word in ("hidden word", "grüsse", "innér", "deep"):
        assert word in text
    assert "secret" not in text
    assert "top" not in text


def test_header_texts():
    """SEARCH HEADER and TEXT see decoded values, every field of the name, not the body."""
    raw = b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nX-Tag: One\r\n two\r\nx-tag: THREE\r\n\r\nX-Tag: body\r\n"
    assert field_text(raw, "x-TAG") == ["one two", "three"]
    assert field_text(raw, "x-none") == []
    assert "subject: grüsse" in header_text(raw)
    assert "body" not in header_text(raw)


def test_part_text_is_bounded():
    """Only so many bytes of a part are decoded, at a line's end."""
    raw = _mail(b"12345678\r\n" * 1000)
    part = summarize(raw).parts[0]
    assert part_text(raw, part, 25) == "12345678\r\n12345678\r\n"
    assert limits.TEXT_BYTES_MAX < limits.SEARCH_CHARS_MAX

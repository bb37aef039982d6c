"""Header fields on bytes: reading, choosing, removing, writing."""

import email
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.message.headers import (
    UnsafeHeaderError,
    authserv_id,
    body_offset,
    collect,
    fields,
    format_field,
    format_structured,
    remove,
    remove_authentication_results,
    select,
    strip_comments,
    unfold,
    values,
)
from mailpod.message.words import decode_words

RAW = (
    b"Received: one\r\n\tfolded\r\nSubject : spaced\r\nno colon here\r\nFrom: a@example.com\r\nreceived: two\r\n\r\n"
    b"body\r\nSubject: not a header\r\n"
)


def test_fields_and_their_offsets():
    """Trace fields are cut out by these offsets: one byte off would glue two fields together."""
    found = list(fields(RAW))
    assert [field.name for field in found] == [b"received", b"subject", b"from", b"received"]
    assert RAW[found[0].start : found[0].end] == b"Received: one\r\n\tfolded\r\n"
    assert unfold(RAW[found[0].value_start : found[0].end]) == b"one folded"
    assert RAW[found[1].start : found[1].end] == b"Subject : spaced\r\n"


@pytest.mark.parametrize(
    ("raw", "offset"),
    [(b"", 0), (b"\r\nx", 2), (b"\nx", 1), (b"A: b\r\n\r\nx", 8), (b"A: b\n\nx", 6), (b"A: b\n\r\nx", 7), (b"A: b\r\n", 6), (b"A: b", 4)],
)
def test_body_offset(raw, offset):
    """Where header and body part, also with bare line feeds and without an empty line."""
    assert body_offset(raw) == offset


def test_bare_line_feed_ends_the_header_first():
    """An empty line of bare line feeds before the first of CRLF ends the header."""
    assert body_offset(b"A: b\n\nC: d\r\n\r\nx") == 6


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_fields_never_fail(raw):
    """Any bytes: fields are in order, do not overlap, and stay within the header."""
    end = body_offset(raw)
    position = 0
    for field in fields(raw):
        assert position <= field.start < field.value_start <= field.end <= end
        position = field.end


def test_select_and_its_inverse():
    """BODY[HEADER.FIELDS (…)] and NOT: byte for byte, an empty line at the end, in the message's order."""
    assert select(RAW, [b"FROM", b"Subject"]) == b"Subject : spaced\r\nFrom: a@example.com\r\n\r\n"
    assert select(RAW, [b"Received"], inverted=True) == b"Subject : spaced\r\nFrom: a@example.com\r\n\r\n"
    assert select(RAW, [b"X-None"]) == b"\r\n"
    assert select(b"A: b", [b"a"]) == b"A: b\r\n\r\n"


def test_remove_takes_all_of_a_field():
    """Bcc folded over lines goes with all its lines, in any case, as often as it is there: else hidden recipients show."""
    raw = b"Bcc: secret@example.com,\r\n other@example.com\r\nFrom: a@example.com\r\nBCC : more@example.com\r\n\r\nBcc: body\r\n"
    assert remove(raw, (b"bcc",)) == b"From: a@example.com\r\n\r\nBcc: body\r\n"
    untouched = b"From: a@example.com\r\n\r\nBcc: body\r\n"
    assert remove(untouched, (b"bcc",)) is untouched


@pytest.mark.parametrize(
    "claim",
    [
        "mx.example.com; spf=pass",
        "MX.Example.Com 1; dkim=pass",
        "(comment (nested)) mx.example.com; none",
        '"mx.example.com"; none',
        "mx.example.com (c);\r\n\tdkim=pass",
        "mx.example.com. ; x",
        "mx.example.com",
    ],
)
def test_forged_results_are_removed(claim):
    """A result that claims to be ours and came from outside would be believed by the reader's mail program (RFC 8601 §5)."""
    raw = f"Authentication-Results: {claim}\r\nAuthentication-Results: other.example; spf=fail\r\nFrom: a@example.com\r\n\r\nx".encode()
    cleaned = remove_authentication_results(raw, ["mx.example.com"])
    assert cleaned == b"Authentication-Results: other.example; spf=fail\r\nFrom: a@example.com\r\n\r\nx"


def test_arc_results_name_their_maker_after_the_instance():
    """RFC 8617 §4.1.1: `i=1; mx.example.com; …`."""
    assert authserv_id(b" i=1; mx.example.com; spf=pass") == "mx.example.com"
    assert authserv_id(b"") == ""


_EVIL = ["\r\n", "\n", "\r", "\x1c", "\x1d", "\x1e", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\0"]


@pytest.mark.case(8)
@pytest.mark.parametrize("sign", _EVIL, ids=ascii)
def test_no_value_makes_a_second_field(sign):
    """A display name or subject with a line break, in any spelling of one, stays one field for every reader."""
    written = format_field("Subject", f"hello{sign}Bcc: victim@example.com{sign}{sign}body")
    assert written.endswith(b"\r\n")
    assert sign.encode() not in written[:-2].replace(b"\r\n ", b"")
    for policy in (email.policy.compat32, email.policy.default):
        assert email.message_from_bytes(written + b"\r\n", policy=policy).keys() == ["Subject"]
    assert [field.name for field in fields(written + b"\r\n")] == [b"subject"]
    assert all(line.startswith((b"Subject:", b" ")) for line in written.splitlines())


@pytest.mark.case(8)
@pytest.mark.parametrize("sign", _EVIL, ids=ascii)
def test_structured_values_with_breaks_are_refused(sign):
    """Addresses cannot be encoded, so they are refused instead."""
    with pytest.raises(UnsafeHeaderError):
        format_structured("Return-Path", f"<a{sign}X: y@example.com>".encode())


@pytest.mark.case(8)
@pytest.mark.parametrize("name", ["", "Sub ject", "Subject:", "Subject\r\nX", "Sübject", "a\0"])
def test_names_that_are_none(name):
    """A field name is printable ASCII without a colon (RFC 5322 §3.6.8)."""
    with pytest.raises(UnsafeHeaderError):
        format_field(name, "x")
    with pytest.raises(UnsafeHeaderError):
        format_structured(name, b"x")


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_written_text_reads_the_same(text):
    """What is written as a subject is read back as it was, by us and by the standard library, and lines stay short."""
    text = text.replace("\ud800", "")
    written = format_field("Subject", text)
    back = decode_words(values(written + b"\r\n", b"subject")[0])
    assert back == text.strip(" \t").encode("utf-8", "replace").decode()
    assert written.count(b"\n") == len(written.splitlines())


def test_long_fields_are_folded():
    """RFC 5322 §2.1.1: lines of at most 78 where white space allows it; unfolding gives the value back."""
    value = " ".join(["word"] * 60)
    written = format_field("Subject", value)
    assert max(map(len, written.split(b"\r\n"))) <= 78
    assert values(written + b"\r\n", b"subject") == [value.encode()]


def test_collect_joins_and_strips():
    """Folded values are one line; a bare CR in them is a space; later fields of the same name follow."""
    block = b"To: a\r\n b\r\nto :c\r\n\tNo\rte\r\nX: y\r\n"
    assert collect(block, {b"to"}) == {b"to": [b"a b", b"c No te"]}


def test_strip_comments():
    """Nested comments go; brackets in quoted strings stay; an unclosed one takes the rest."""
    assert strip_comments('a (b (c) d) "e (f)" g') == 'a   "e (f)" g'
    assert strip_comments("a (b") == "a "
    assert strip_comments(r"a (b \) c) d").split() == ["a", "d"]

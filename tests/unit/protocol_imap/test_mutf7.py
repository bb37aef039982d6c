"""Modified UTF-7 and the rules for names: one name, one spelling."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits.imap import MAILBOX_BYTES_MAX
from mailpod.protocol.imap import mutf7

unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("INBOX", b"INBOX"),
        ("a&b", b"a&-b"),
        ("&", b"&-"),
        ("&&", b"&-&-"),
        ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),  # RFC 3501 §5.1.3
        ("Entwürfe", b"Entw&APw-rfe"),
        ("é&è", b"&AOk-&-&AOg-"),
        ("😀", b"&2D3eAA-"),
        ("a\tb", b"a&AAk-b"),
        ("", b""),
    ],
)
def test_known_names(name, wire):
    """Other clients see the same folders."""
    assert mutf7.encode(name) == wire
    assert mutf7.decode(wire) == name


@pytest.mark.case(22)
@pytest.mark.parametrize(
    "wire",
    [
        b"&",
        b"a&",
        b"&Jjo",
        b"&Jjo!",
        b"&J-",
        b"&JA-",
        b"&Jjp-",
        b"&AGE-",
        b"&AOkAYQ-",
        b"&2D0-",
        b"&3gA-",
        b"&AOk-&AOg-",
        b"&AOk=-",
        b"&U/BT-",
        b"\xc3\xa9",
        b"a\x01",
        b"a\x7f",
        b"a\x00",
        b"&AOk -",
        b"&ACY-",
        b"&,-",
    ],
)
def test_bad_modified_utf7(wire):
    """Two spellings of one name would be two folders, or one client's folder hidden from another."""
    with pytest.raises(mutf7.BadName):
        mutf7.decode(wire)


@settings(max_examples=200, deadline=None)
@given(unicode_text)
def test_round_trip(name):
    """Every name that can be made can be named again."""
    wire = mutf7.encode(name)
    assert wire.isascii()
    assert mutf7.decode(wire) == name


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=30), st.text("&-,+/AOkJjo2D3e ", max_size=30).map(str.encode)))
def test_any_bytes_have_one_meaning_or_none(wire):
    """What is accepted is exactly what would be sent."""
    try:
        name = mutf7.decode(wire)
    except mutf7.BadName:
        return
    assert mutf7.encode(name) == wire


@settings(max_examples=200, deadline=None)
@given(st.one_of(unicode_text.map(str.encode), st.binary(max_size=30)), st.booleans())
def test_mailbox_names_are_nfc_and_clean(raw, utf8):
    """Two spellings of é must not be two folders, and no name may break a line of a log or an answer."""
    try:
        name = mutf7.decode_mailbox(raw, utf8)
    except mutf7.BadName:
        return
    assert unicodedata.is_normalized("NFC", name)
    assert not any(unicodedata.category(char) == "Cc" for char in name)


@pytest.mark.case(22)
def test_names_are_bounded():
    """A name is stored and listed for ever."""
    assert mutf7.decode_mailbox(b"x" * MAILBOX_BYTES_MAX, utf8=True)
    for raw in (b"x" * (MAILBOX_BYTES_MAX + 1), "é".encode() * MAILBOX_BYTES_MAX, "e\u0301".encode() * 1_000_000):
        with pytest.raises(mutf7.BadName):
            mutf7.decode_mailbox(raw, utf8=True)


@pytest.mark.case(22)
@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../b",
        "a/../b",
        "a/.",
        "a*",
        "%",
        " a",
        "a ",
        "a/ b",
        "a\x00b",
        "a\nb",
        "a\u2028b",
        "\ufeffa",
        "\x85",
        "\ud800",
    ],
)
def test_names_that_may_not_be_made(name):
    """Such a name could not be listed, typed or told apart, or would be taken for a path."""
    with pytest.raises(mutf7.BadName):
        mutf7.check_new_name(name, "/")


@pytest.mark.parametrize("name", ["a", "a/b/c", "...", "a b", "日本語", "&", "a.b", "INBOX/x", '"', "\\"])
def test_names_that_may_be_made(name):
    """Odd is not wrong."""
    mutf7.check_new_name(name, "/")

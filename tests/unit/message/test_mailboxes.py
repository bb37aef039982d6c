"""Envelope addresses: MAIL FROM and RCPT TO (RFC 5321 §4.1.2, RFC 6531 §3.3)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.message.mailboxes import normal_domain, normal_local, parse_mailbox, parse_path, quote_local


@pytest.mark.case(9)
@pytest.mark.parametrize(
    ("path", "local", "domain", "address", "route"),
    [
        (b"<Alice@Example.COM>", "alice", "example.com", "Alice@example.com", ""),
        (b"alice@example.com", "alice", "example.com", "alice@example.com", ""),
        (b'<"Alice"@example.com>', "alice", "example.com", "Alice@example.com", ""),
        (b'<"a b"@example.com>', "a b", "example.com", '"a b"@example.com', ""),
        (b'<"a\\"\\\\b"@example.com>', 'a"\\b', "example.com", '"a\\"\\\\b"@example.com', ""),
        (b'<""@example.com>', "", "example.com", '""@example.com', ""),
        (b'<"a@b>"@example.com>', "a@b>", "example.com", '"a@b>"@example.com', ""),
        (b"<@one.example,@two.example:alice@example.com>", "alice", "example.com", "alice@example.com", "@one.example,@two.example"),
        (b"<a+tag@example.com>", "a+tag", "example.com", "a+tag@example.com", ""),
        (b"<a@[192.0.2.1]>", "a", "[192.0.2.1]", "a@[192.0.2.1]", ""),
        (b"<a@[IPV6:2001:DB8:0::1]>", "a", "[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]", ""),
        (b"<a@localhost>", "a", "localhost", "a@localhost", ""),
        (b"<a@under_score.example>", "a", "under_score.example", "a@under_score.example", ""),
        ("<J\u00fcrgen@m\u00fcller.example>".encode(), "j\u00fcrgen", "xn--mller-kva.example", "J\u00fcrgen@xn--mller-kva.example", ""),
        ("<Ju\u0308rgen@example.com>".encode(), "j\u00fcrgen", "example.com", "J\u00fcrgen@example.com", ""),  # NFC
        ("<a@MU\u0308LLER.example>".encode(), "a", "xn--mller-kva.example", "a@xn--mller-kva.example", ""),
    ],
)
def test_paths(path, local, domain, address, route):
    """One mailbox has one look-up form, however it is written; the sender's spelling is kept for Return-Path."""
    assert parse_path(path, smtputf8=True) == (local, domain, address, route)


@pytest.mark.case(9)
@pytest.mark.parametrize(
    "path",
    [
        b"<>",
        b"",
        b"<alice>",
        b"<@example.com>",
        b"<alice@>",
        b"<alice@@example.com>",
        b"<alice@example.com@example.org>",
        b"<a b@example.com>",
        b"<.a@example.com>",
        b"<a.@example.com>",
        b"<a..b@example.com>",
        b"<a@example..com>",
        b"<a@-example.com>",
        b"<a@example.com.>",
        b"<a@exam ple.com>",
        b"<a(comment)@example.com>",
        b'<"a@example.com>',
        b'<"a"b@example.com>',
        b'<a"b"@example.com>',
        b"<a@[192.0.2.300]>",
        b"<a@[IPv6:fe80::1%eth0]>",
        b"<a@[IPv6:xyz]>",
        b"<a@[]>",
        b"<a@[192.0.2.1>",
        b"<@one.example alice@example.com>",
        b"<@one.example,two.example:alice@example.com>",
        b"<a\xff@example.com>",
        b"<a" + b"x" * 2000 + b"@example.com>",
        b"<" + b"x" * 300 + b"@example.com>",
        b"<a@" + b"x" * 64 + b".com>",
        b"<a\0@example.com>",
        b'<"a\0"@example.com>',
        b'<"a\r\nRCPT TO:<b@example.org>"@example.com>',
        b"<a\x1cb@example.com>",
        "<a\u2028b@example.com>".encode(),
        "<a\u00a0b@example.com>".encode(),
        "<a@exa\u2028mple.com>".encode(),
        "<a@\u2100.example>".encode(),  # UTS 46 maps it to "a/c"
    ],
)
def test_paths_that_are_none(path):
    """501, and nothing that could end a header field reaches one."""
    assert parse_path(path, smtputf8=True) is None


def test_utf8_needs_smtputf8():
    """RFC 6531 §3.4: without the parameter only ASCII."""
    assert parse_path("<ü@example.com>".encode()) is None
    assert parse_mailbox("ü@example.com", smtputf8=False) is None
    assert parse_mailbox("ü@example.com") is not None


def test_postmaster_without_a_domain():
    """RFC 5321 §4.5.1: in RCPT only, in any case."""
    assert parse_path(b"<PostMaster>", postmaster=True) == ("postmaster", "", "postmaster", "")
    assert parse_path(b"<postmaster>") is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_what_is_written_is_read(local):
    """An address that we write (Return-Path, logs, DSN) is read as the same mailbox again."""
    mailbox = parse_mailbox(f"{quote_local(local)}@example.com")
    if mailbox is not None:
        again = parse_mailbox(mailbox.address)
        assert again is not None
        assert (again.local, again.domain) == (mailbox.local, mailbox.domain)
        assert len(mailbox.address.splitlines()) == 1


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text('a@.<>"\\[]:,(é', max_size=30).map(str.encode)))
def test_never_fails(path):
    """Any bytes are a path or none; a path's parts are normalised already."""
    found = parse_path(path, smtputf8=True)
    if found is not None:
        assert normal_local(found.local) == found.local
        assert normal_domain(found.domain) == found.domain

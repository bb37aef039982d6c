"""Address lists in header fields: what ENVELOPE shows and what policy may trust."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits import message as limits
from mailpod.message.addresses import MISSING_DOMAIN, MISSING_MAILBOX, Address, parse_addresses, parse_mailboxes, sort_key


def _short(value: str):
    return [(one.name, one.route, one.mailbox, one.host) for one in parse_addresses(value.encode())]


@pytest.mark.case(9)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@example.com", [(None, None, "a", "example.com")]),
        ("Alice <a@example.com>", [("Alice", None, "a", "example.com")]),
        ("Alice B. Cee <a@example.com>, b@x", [("Alice B. Cee", None, "a", "example.com"), (None, None, "b", "x")]),
        ('"Doe, John" <j@example.com>', [("Doe, John", None, "j", "example.com")]),
        ('"a\\"b\\\\c" <j@example.com>', [('a"b\\c', None, "j", "example.com")]),
        ('"odd local"@example.com', [(None, None, "odd local", "example.com")]),
        ('""@example.com', [(None, None, "", "example.com")]),
        ("a@example.com (Old (nested) Style)", [("Old (nested) Style", None, "a", "example.com")]),
        ("(x) a (y) @ (z) example . com (w)", [("w", None, "a", "example.com")]),
        ("<@r1.example,@r2.example:a@example.com>", [(None, "@r1.example,@r2.example", "a", "example.com")]),
        ("a@[192.0.2.1]", [(None, None, "a", "[192.0.2.1]")]),
        (
            "G: a@x, B <b@y>; c@z",
            [(None, None, "G", None), (None, None, "a", "x"), ("B", None, "b", "y"), (None,) * 4, (None, None, "c", "z")],
        ),
        ("undisclosed-recipients:;", [(None, None, "undisclosed-recipients", None), (None,) * 4]),
        ("G: a@x", [(None, None, "G", None), (None, None, "a", "x"), (None,) * 4]),  # the ";" is lost
        ("a.b.c@example.com", [(None, None, "a.b.c", "example.com")]),
        (".a..b.@example.com", [(None, None, ".a..b.", "example.com")]),
        ("noone", [(None, None, "noone", MISSING_DOMAIN)]),
        ("John Smith", [("John Smith", None, MISSING_MAILBOX, MISSING_DOMAIN)]),
        ("@example.com", [(None, None, MISSING_MAILBOX, "example.com")]),
        ("a@", [(None, None, "a", MISSING_DOMAIN)]),
        ("<>", [(None, None, MISSING_MAILBOX, MISSING_DOMAIN)]),
        ("<a@x, b@y>", [(None, None, "a", "x"), (None, None, "b", "y")]),
        (",,a@x,,", [(None, None, "a", "x")]),
        ("", []),
        ("(nothing)", []),
        ("=?utf-8?Q?M=C3=BC?= <a@x>", [("=?utf-8?Q?M=C3=BC?=", None, "a", "x")]),
    ],
)
def test_lists(value, expected):
    """RFC 5322 §3.4 and §4.4: recipients as the sender wrote them."""
    assert _short(value) == expected


@pytest.mark.case(9)
@pytest.mark.parametrize(
    "value",
    [
        "alice@example.org)bob@example.com",
        "alice@example.org(<bob@example.com>",
        "alice@example.org<bob@example.com>",
        "alice@example.org,<bob@example.com",
        "<alice@example.org><bob@example.com>",
        "<alice@example.org>bob@example.com",
        "alice@example.org bob@example.com",
        "alice@example.org@example.com",
        "alice@example.org:bob@example.com",
        "alice@example.org;bob@example.com",
        "alice@example.org[bob@example.com",
        "alice@example.org]bob@example.com",
        "alice@example.org>bob@example.com",
        '"alice@example.org" bob@example.com',
        'alice"@example.org <bob@example.com>',
        "alice@example.org\\bob@example.com",
        "a b@example.com",
        "alice@example..org",
        "alice@",
        "alice",
        "",
        "(alice@example.com)",
        "undisclosed-recipients:;",
        "alice@-.example, bob@example.com",
    ],
)
def test_nobody_is_trusted_where_parsers_disagree(value):
    """CVE-2023-27043: such a From names nobody, so no login and no domain matches it."""
    assert parse_mailboxes(value.encode()) == []


@pytest.mark.case(9)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Alice <Alice@Example.COM>", ["alice@example.com"]),
        (b'"x@evil.example" <alice@example.com>', ["alice@example.com"]),
        (b'"alice"@example.com', ["alice@example.com"]),
        ("Jürgen <jürgen@müller.example>".encode(), ["jürgen@xn--mller-kva.example"]),
        (b"G: a@example.com, b@example.com;", ["a@example.com", "b@example.com"]),
        (b"a@example.com (x(y)z)", ["a@example.com"]),
    ],
)
def test_mailboxes(value, expected):
    """What policy compares: normalised local part and domain, never the display name."""
    assert [f"{one.local}@{one.domain}" for one in parse_mailboxes(value)] == expected


def test_sort_key():
    """RFC 5256 §3: SORT FROM compares the first address' local part without case."""
    assert sort_key(parse_addresses(b"Zed <Alice@example.com>, b@x")) == "alice"
    assert sort_key(parse_addresses("<Ä@x>".encode())) == "ä"
    assert sort_key(parse_addresses(b"Group: a@x;")) == "group"
    assert sort_key([]) == ""


@pytest.mark.case(5)
@pytest.mark.parametrize(
    "value",
    [
        b",".join(b"user%d@example.com" % n for n in range(100_000)),
        b"(" * 250_000,
        b"(" * 100_000 + b")" * 100_000 + b"a@x",
        b'"' * 250_000,
        b"<" * 250_000,
        b"a " * 125_000,
        b"a." * 125_000,
        b"a@" * 125_000,
        b":" * 250_000,
        b"a:b@c;" * 40_000,
        b"\\" * 250_000,
        b"[" * 250_000,
        b"<@a," * 60_000,
        b"(a)" * 80_000,
    ],
    ids=lambda value: ascii(value[:6]),
)
def test_huge_fields_are_bounded(value):
    """An address field of any size and shape costs less than a second and gives at most so many addresses."""
    start = time.process_time()
    found = parse_addresses(value)
    assert time.process_time() - start < 1
    assert len(found) <= limits.ADDRESSES_MAX


@settings(max_examples=200, deadline=None)
@given(st.text('ab@.,:;<>()[]"\\ \té\0\r\n=?', max_size=40))
def test_never_fails(value):
    """Any text is some list; groups open and close in turn."""
    depth = 0
    for address in parse_addresses(value.encode()):
        assert isinstance(address, Address)
        if address.host is None:
            depth += 1 if address.mailbox is not None else -1
            assert depth in (0, 1)
    assert depth == 0


_WORD = st.text("abcdefgXYZ019!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(_WORD, max_size=3), _WORD, st.lists(st.text("abc019", min_size=1, max_size=5), min_size=1, max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_both_ways_agree(drawn):
    """The quick pattern and the whole grammar read plain addresses alike (a comment in front forces the grammar)."""
    value = ", ".join(f"{' '.join(name)} <{local}@{'.'.join(host)}>" for name, local, host in drawn).encode()
    assert parse_addresses(value) == parse_addresses(b"(c)" + value.lstrip()) or any(not name for name, _, _ in drawn)
    assert [(a.mailbox, a.host) for a in parse_addresses(value)] == [(local, ".".join(host)) for _, local, host in drawn]

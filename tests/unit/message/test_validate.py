"""What is refused at the end of DATA."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.message import validate as checks
from mailpod.message.validate import hops, inspect, validate

GOOD = b"Subject: x\r\n\r\nbody\r\n"


@pytest.mark.case(1)
@pytest.mark.parametrize(
    "raw",
    [
        GOOD + b"\n.\r\nMAIL FROM:<a@example.com>\r\n",
        GOOD + b".\n",
        GOOD + b"\r.\r\n",
        GOOD + b"a\rb\r\n",
        GOOD + b"\r\r\n",
        GOOD + b"\n\r",
        b"\n" + GOOD,
        b"Subject: x\n\r\nbody\r\n",
        b"Subject: x\r\n\r\nbody\r",
        b"\n",
        b"\r",
    ],
)
def test_bare_line_breaks(raw):
    """SMTP smuggling (CVE-2023-51764 to 51766): bytes that another server could take for the end of data are refused."""
    assert validate(raw) is checks.BARE_LINE_BREAK
    assert checks.BARE_LINE_BREAK.smtp_code == 550


@pytest.mark.case(7)
def test_nul():
    """RFC 5322 §4: NUL is refused; programs in C would cut the text there."""
    assert validate(GOOD + b"a\0b\r\n") is checks.NUL_BYTE
    assert validate(b"Sub\0ject: x\r\n\r\n") is checks.NUL_BYTE


@pytest.mark.case(7)
@pytest.mark.parametrize("body", [b"\xff\xfe\r\n", "Grüße\r\n".encode(), b"\xc3\r\n", b"\x80" * 500 + b"\r\n"])
def test_eight_bit_is_taken(body):
    """8-bit text that nobody announced, and UTF-8 that is cut off, is stored as it is."""
    assert validate(GOOD + body) is None
    assert inspect(GOOD + body).eight_bit


@pytest.mark.parametrize("raw", [GOOD, b"", b"\r\n", b"no header\r\n\r\n", b"Subject: x", b"Subject: x\r\n\r\nno end of line"])
def test_good_mail(raw):
    """What is merely unusual is taken."""
    assert validate(raw) is None


def test_binary_bodies():
    """RFC 3030: a BINARYMIME body may hold anything; its header may not."""
    raw = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r\n\n\r\xff"
    assert validate(raw, binary=True) is None
    assert validate(raw) is checks.BARE_LINE_BREAK
    assert validate(b"Subject: a\nb: c\r\n\r\n", binary=True) is checks.BARE_LINE_BREAK


@pytest.mark.case(5)
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"X: " + b"y" * 300_000 + b"\r\n\r\n", checks.HEADER_TOO_LARGE),
        (b"To: a@example.com\r\n" * 100_000 + b"\r\n", checks.HEADER_TOO_LARGE),
        (b"X: y\r\n" * 3_000 + b"\r\n", checks.TOO_MANY_FIELDS),
        (b"X: " + b"y" * 50_000_000 + b"\r\n\r\n", checks.HEADER_TOO_LARGE),
        (GOOD + b"z" * 2_000_000 + b"\r\n", checks.LINE_TOO_LONG),
    ],
    ids=["large", "100000-addresses", "many", "50-MB", "long-line"],
)
def test_limits(raw, reason):
    """Headers and lines beyond the limits get 5xx, under a second."""
    start = time.process_time()
    found = validate(raw)
    assert time.process_time() - start < 1
    assert found is not None
    assert found is reason
    assert found.smtp_code // 100 == 5


@pytest.mark.case(6)
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (
            b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(1000)) + b"\r\nx\r\n",
            checks.MIME_TOO_DEEP,
        ),
        (b"Content-Type: message/rfc822\r\n\r\n" * 1000, checks.MIME_TOO_DEEP),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\n" * 10_000, checks.MIME_TOO_MANY_PARTS),
    ],
    ids=["depth", "message-in-itself", "parts"],
)
def test_mime_limits(raw, reason):
    """MIME trees that no mail program would show get 5xx."""
    assert validate(raw) is reason


def test_many_dashes_are_no_parts():
    """A text with very many lines of dashes (a diff, a signature file) is taken."""
    assert validate(GOOD + b"-- \r\n\r\n" * 20_000) is None
    mixed = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n" + b"--- a\r\n\r\n" * 5_000 + b"--x--\r\n"
    assert validate(mixed) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"a", b"--", b"\0", b"\xff"]), max_size=12).map(b"".join))
def test_inspect_agrees_with_the_slow_way(raw):
    """The one numpy pass counts what a loop would, wherever its blocks are cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_BLOCK_BYTES", 3)
        cut = inspect(raw)
    assert inspect(raw) == cut
    found = inspect(raw)
    without = raw.replace(b"\r\n", b"")
    assert found.bare_breaks == (b"\r" in without or b"\n" in without)
    assert found.nul == (b"\0" in raw)
    assert found.eight_bit == any(byte > 127 for byte in raw)
    assert found.lines == raw.count(b"\n")
    if not found.bare_breaks:
        lines = raw.split(b"\r\n")
        assert found.longest_line == max(map(len, lines))
        assert found.blanks == sum(1 for line in lines[:-1] if not line)
        assert found.dashes == sum(1 for line in lines if line.startswith(b"--"))


def test_hops():
    """RFC 5321 §6.3: a loop shows in the number of Received fields, not in what the body quotes."""
    raw = b"Received: a\r\n b\r\nreceived : c\r\nX-Received: d\r\n\r\nReceived: e\r\n"
    assert hops(raw) == 2

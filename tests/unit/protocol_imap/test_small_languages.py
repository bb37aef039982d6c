"""Dates and SASL lines."""

import contextlib
import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.protocol.imap import sasl
from mailpod.protocol.imap.dates import format_internaldate, parse_date, parse_date_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b" 1-Jan-1970 00:00:00 +0000", 0),
        (b"01-Jan-1970 00:00:00 +0000", 0),
        (b"17-Jul-1996 02:44:25 -0700", 837596665),
        (b"31-dec-1969 23:59:59 +0000", -1),
        (b" 1-Jan-1970 05:30:00 +0530", 0),
        (b"29-Feb-2024 12:00:60 +0000", 1709208060),
    ],
)
def test_date_times(text, seconds):
    """A message keeps the date it had in the mailbox it is moved from."""
    assert parse_date_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"1-Jan-1970",
        b"32-Jan-1970 00:00:00 +0000",
        b"29-Feb-2023 00:00:00 +0000",
        b"00-Jan-1970 00:00:00 +0000",
        b" 1-Foo-1970 00:00:00 +0000",
        b" 1-Jan-0000 00:00:00 +0000",
        b" 1-Jan-1970 24:00:00 +0000",
        b" 1-Jan-1970 00:60:00 +0000",
        b" 1-Jan-1970 00:00:61 +0000",
        b" 1-Jan-1970 00:00:00 +2400",
        b" 1-Jan-1970 00:00:00 +0060",
        b" 1-Jan-1970 00:00:00 GMT",
        b" 1-Jan-1970 00:00:00 +0000 ",
        b"1-Jan-70 00:00:00 +0000",
    ],
)
def test_bad_date_times(text):
    """A date that does not exist is the client's mistake, not today."""
    with pytest.raises(ValueError):
        parse_date_time(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**10), 2 * 10**11))
def test_internaldate_round_trip(seconds):
    """A client that copies mail to another account by FETCH and APPEND keeps its dates."""
    assert parse_date_time(format_internaldate(seconds)) == seconds
    expected = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    assert format_internaldate(seconds).decode() == expected.strftime("%d-%b-") + f"{expected.year:04d}" + expected.strftime(
        " %H:%M:%S +0000"
    )


@pytest.mark.parametrize("seconds", [-(2**63), 2**63 - 1])
def test_internaldate_beyond_the_calendar(seconds):
    """A broken date in the store must not break the whole FETCH."""
    parse_date_time(format_internaldate(seconds))


def test_dates():
    """SEARCH SINCE."""
    assert parse_date(b"1-Feb-2024") == dt.date(2024, 2, 1)
    assert parse_date(b"01-FEB-2024") == dt.date(2024, 2, 1)
    for text in (b"", b"30-Feb-2024", b"1-Feb-24", b"1 Feb 2024", b"001-Feb-2024", b"1-Feb-2024 "):
        with pytest.raises(ValueError):
            parse_date(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_date_or_a_value_error(text):
    """Whatever a client sends, the parser must not fail in its own way."""
    for parse in (parse_date, parse_date_time):
        with contextlib.suppress(ValueError):
            parse(text)


def test_sasl_lines():
    """A cancelled or garbled exchange must not be taken for a wrong password."""
    assert sasl.decode_response(b"AGE=") == b"\0a"
    assert sasl.decode_response(b"") == b""
    assert sasl.decode_initial(b"=") == b""
    assert sasl.decode_initial(b"AGE=") == b"\0a"
    assert sasl.challenge(b"") == b"+ \r\n"
    assert sasl.challenge(b"x" * 100) == b"+ " + b"eHh4" * 33 + b"eA==\r\n"
    with pytest.raises(sasl.Cancelled):
        sasl.decode_response(b"*")


@pytest.mark.case(16)
@pytest.mark.parametrize(
    "text", [b"A", b"AA", b"AA=", b"AAA==", b"A===", b" AGE=", b"AGE= ", b"AG\nE=", b"AGE=AGE=", b"A-_=", b"**", b"\xff", b"="]
)
def test_bad_base64(text):
    """Lenient base64 lets two readers see two different things."""
    with pytest.raises(ValueError):
        sasl.decode_response(text)


def test_an_empty_initial_response_is_written_as_equals():
    """RFC 4959 §3."""
    with pytest.raises(ValueError):
        sasl.decode_initial(b"")

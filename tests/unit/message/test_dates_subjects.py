"""Date fields and base subjects."""

import calendar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.message.dates import civil_from_days, days_from_civil, format_date, parse_date
from mailpod.message.subject import base_subject

EPOCH_DAYS = 719_163  # the ordinal of 1970-01-01


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Tue, 24 Nov 2026 08:31:05 +0000", (2026, 11, 24, 8, 31, 5, 0)),
        ("24 Nov 2026 08:31:05 +0130", (2026, 11, 24, 8, 31, 5, 90)),
        ("Tue,24 Nov 2026 08:31 -0800", (2026, 11, 24, 8, 31, 0, -480)),
        ("Tue, 24 Nov 26 08:31:05 EST", (2026, 11, 24, 8, 31, 5, -300)),
        ("24 Nov 94 08:31:05 GMT", (1994, 11, 24, 8, 31, 5, 0)),
        ("24 Nov 102 08:31:05 Z", (2002, 11, 24, 8, 31, 5, 0)),
        ("Tue, 24 Nov 2026 08:31:05 (comment) +0200 (CEST)", (2026, 11, 24, 8, 31, 5, 120)),
        ("Tue, 24 Nov 2026 08:31:05 GMT+0200", (2026, 11, 24, 8, 31, 5, 120)),
        ("Tue, 24 Nov 2026 08:31:05 +02:00", (2026, 11, 24, 8, 31, 5, 120)),
        ("Tue, 24 Nov 2026 08:31:05", (2026, 11, 24, 8, 31, 5, 0)),
        ("Tue, 24 Nov 2026", (2026, 11, 24, 0, 0, 0, 0)),
        ("Tue, 24 Nov 2026 08:31:05 XYZ", (2026, 11, 24, 8, 31, 5, 0)),
        ("Tue, 24-Nov-2026 08:31:05 +0000", (2026, 11, 24, 8, 31, 5, 0)),
        ("Tuesday, 24 November 2026 8:31:05 PM +0000", (2026, 11, 24, 20, 31, 5, 0)),
        ("Sun Nov  6 08:49:37 1994", (1994, 11, 6, 8, 49, 37, 0)),
        ("31 Dec 2016 23:59:60 +0000", (2016, 12, 31, 23, 59, 59, 0)),
        ("24 Nov 2026 08:31:05 +9999", (2026, 11, 24, 8, 31, 5, 0)),
        ("1 Jan 1960 00:00:00 +0000", (1960, 1, 1, 0, 0, 0, 0)),
    ],
)
def test_dates(value, expected):
    """SORT DATE and SENTSINCE work on what senders really write (RFC 5322 §3.3, §4.3)."""
    year, month, day, hour, minute, second, zone = expected
    found = parse_date(value.encode())
    assert found == (calendar.timegm((year, month, day, hour, minute, second)) - zone * 60, zone)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "32 Nov 2026 00:00:00 +0000",
        "29 Feb 2025 00:00 +0000",
        "24 Foo 2026 00:00 +0000",
        "24 Nov 2026 25:00 +0000",
        "0 Nov 2026",
        "\0",
        "24 Nov 0000 00:00 +0000",
    ],
)
def test_no_dates(value):
    """Garbage is no date; the message's arrival counts instead."""
    assert parse_date(value.encode()) is None


@settings(max_examples=150, deadline=None)
@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(-14 * 60, 14 * 60))
def test_dates_round_trip(seconds, zone):
    """What we write is read as the same moment, by us and by the standard library."""
    local = seconds + zone * 60
    if not -62_135_596_800 <= local <= 253_402_300_799:
        return
    written = format_date(seconds, zone)
    assert parse_date(written.encode()) == (seconds, zone)
    if civil_from_days(local // 86400)[0] >= 1000:  # the standard library takes lower years for short forms
        theirs = parsedate_to_datetime(written)
        assert int((theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)).timestamp()) == seconds


@settings(max_examples=100, deadline=None)
@given(st.datetimes())
def test_calendar(moment: datetime):
    """The calendar is the standard library's."""
    days = moment.toordinal() - EPOCH_DAYS
    assert days_from_civil(moment.year, moment.month, moment.day) == days
    assert civil_from_days(days) == (moment.year, moment.month, moment.day)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text("0123456789 :+-,()JanFebTueGMTPM", max_size=50).map(str.encode)))
def test_dates_never_fail(value):
    """Any bytes."""
    found = parse_date(value)
    assert found is None or -62_200_000_000 < found.seconds < 253_500_000_000


@pytest.mark.parametrize(
    ("subject", "base", "reply"),
    [
        ("Hello", "hello", False),
        ("Re: Hello", "hello", True),
        ("RE:hello", "hello", True),
        ("re : Re: FW: fwd: Hello", "hello", True),
        ("Re[2]: Hello", "hello", True),
        ("Re [x] : Hello", "hello", True),
        ("[list] Re: Hello", "hello", True),
        ("[list] Hello", "hello", False),
        ("[a][b] [c] Hello", "hello", False),
        ("[a] Re: [b] Re: Hello", "hello", True),
        ("[only]", "[only]", False),
        ("[a] [only]", "[only]", False),
        ("Hello (fwd)", "hello", True),
        ("Hello (FWD) (fwd)  ", "hello", True),
        ("[fwd: Hello]", "hello", True),
        ("[Fwd: Re: [fwd: Hello]]", "hello", True),
        ("Re: [fwd: [list] Hello (fwd)]", "hello", True),
        ("  spaced \t out  ", "spaced out", False),
        ("Regarding: x", "regarding: x", False),
        ("Re:", "", True),
        ("", "", False),
        ("Straße", "strasse", False),
        ("[re: x", "[re: x", False),
        ("[]Hello", "hello", False),
    ],
)
def test_base_subject(subject, base, reply):
    """RFC 5256 §2.1: replies sort and thread with what they answer."""
    assert base_subject(subject) == (base, reply)


@settings(max_examples=200, deadline=None)
@given(st.text("RrEeFfWwDd:[]() x", max_size=40))
def test_base_subject_is_final(subject):
    """Extraction has nothing left to do on its own result."""
    base = base_subject(subject).text
    assert base_subject(base).text == base


def test_base_subject_is_linear():
    """Long chains of marks cost milliseconds."""
    import time

    start = time.process_time()
    for unit in ("[a]", "re:", "[fwd:", "[a]re:", "(fwd)", "re[", " ", "[", "re "):
        base_subject(unit * (4096 // len(unit)))
        base_subject(unit * (4096 // len(unit)) + "]" * 500)
    assert time.process_time() - start < 1

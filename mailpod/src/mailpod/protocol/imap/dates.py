"""IMAP's dates: date-time of INTERNALDATE and APPEND, date of SEARCH (RFC 9051 §9)."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

_MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH_NUMBER: Final = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_DATE = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")
_DATE_TIME = re.compile(rb"([0-9 ][0-9]|[0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})")
_EPOCH_ORDINAL: Final = dt.date(1970, 1, 1).toordinal()
_DAY_S: Final = 86400
_SECONDS_MAX: Final = (dt.date.max.toordinal() - _EPOCH_ORDINAL + 1) * _DAY_S - 1
_SECONDS_MIN: Final = (1 - _EPOCH_ORDINAL) * _DAY_S


def parse_date(text: bytes) -> dt.date:
    """`1-Feb-2024`, without quotes. Raises ValueError."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    return _date(match[1], match[2], match[3])


def parse_date_time(text: bytes) -> int:
    """` 1-Feb-2024 10:20:30 +0100`, without quotes, as seconds since 1970-01-01 UTC. Raises ValueError."""
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a date-time")
    hours, minutes, seconds = int(match[4]), int(match[5]), int(match[6])
    zone_hours, zone_minutes = int(match[8]), int(match[9])
    if hours > 23 or minutes > 59 or seconds > 60 or zone_hours > 23 or zone_minutes > 59:
        raise ValueError("no such time")
    days = _date(match[1], match[2], match[3]).toordinal() - _EPOCH_ORDINAL
    offset = (zone_hours * 60 + zone_minutes) * 60
    local = days * _DAY_S + hours * 3600 + minutes * 60 + seconds
    return local - offset if match[7] == b"+" else local + offset


def format_internaldate(seconds: int) -> bytes:
    """`01-Feb-2024 10:20:30 +0000`, without quotes, in UTC. Moments beyond years 1 to 9999 are shown as the nearest."""
    days, rest = divmod(min(max(seconds, _SECONDS_MIN), _SECONDS_MAX), _DAY_S)
    date = dt.date.fromordinal(days + _EPOCH_ORDINAL)
    return b"%02d-%b-%04d %02d:%02d:%02d +0000" % (
        date.day,
        _MONTHS[date.month - 1],
        date.year,
        rest // 3600,
        rest // 60 % 60,
        rest % 60,
    )


def _date(day: bytes, month: bytes, year: bytes) -> dt.date:
    number = _MONTH_NUMBER.get(month.lower())
    if number is None:
        raise ValueError("no such month")
    return dt.date(int(year), number, int(day))

"""Date fields (RFC 5322 §3.3, obsolete forms §4.3): read without failing, written from a given moment. No ambient time."""

from __future__ import annotations

import re
from typing import NamedTuple

from mailpod.message.headers import strip_comments

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NUMBER = {name: number for number, name in enumerate(_MONTHS, 1)}
_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH_NAMES = tuple(name.capitalize() for name in _MONTHS)
# RFC 5322 §4.3: obs-zone; single letters (military) mean nothing and are read as -0000
_ZONES = {
    "ut": 0,
    "gmt": 0,
    "utc": 0,
    "z": 0,
    "est": -300,
    "edt": -240,
    "cst": -360,
    "cdt": -300,
    "mst": -420,
    "mdt": -360,
    "pst": -480,
    "pdt": -420,
    "cet": 60,
    "cest": 120,
    "bst": 60,
    "jst": 540,
}
_DATE = re.compile(
    r"""
    \s* (?:[A-Za-z]{2,9} \s*[,.]?\s*)?
    (\d{1,2}) [\s-]+ ([A-Za-z]{3})[A-Za-z]{0,6} [\s,-]+ (\d{2,4})
    (?: [\s,]+ (\d{1,2}) \s*[:.]\s* (\d{1,2}) (?: \s*[:.]\s* (\d{1,2}) (?:[.,]\d{1,9})? )?
      (?: \s* ([AaPp])[Mm]\b )?
      (?: \s* (?: (?:GMT|UTC)? ([+-]\d{4}|[+-]\d{2}:\d{2}) | ([A-Za-z]{1,5}) ) )?
    )?
    """,
    re.VERBOSE | re.ASCII,
)
# asctime, as old senders write: Sun Nov  6 08:49:37 1994
_ASCTIME = re.compile(
    r"\s*[A-Za-z]{3,9},?\s+([A-Za-z]{3})[a-z]{0,6}\s+(\d{1,2}),?\s+(\d{1,2}):(\d{2})(?::(\d{2}))?\s+(?:[A-Z]{1,5}\s+)?(\d{4})", re.ASCII
)
_DATE_BYTES_MAX = 256
_YEAR_MAX = 9999


class Moment(NamedTuple):
    """A date with its zone."""

    seconds: int  # since 1970-01-01 UTC; before it: negative
    zone_minutes: int  # east of UTC


def parse_date(value: bytes) -> Moment | None:
    """A Date field's value; None when it names no moment. A missing or unknown zone is UTC, a missing time 00:00 (RFC 5256 §2.2)."""
    text = value[:_DATE_BYTES_MAX].decode("latin-1")
    if "(" in text:
        text = strip_comments(text)
    match = _DATE.match(text)
    if match is None:
        match = _ASCTIME.match(text)
        if match is None:
            return None
        month_name, day, hour, minute, second, year = match.groups()
        return _moment(year, month_name, day, hour, minute, second, 0)
    day, month_name, year, hour, minute, second, half, offset, zone = match.groups()
    if half and hour:
        hour = str(int(hour) % 12 + (12 if half in "pP" else 0))
    return _moment(year, month_name, day, hour, minute, second, _zone_minutes(offset, zone))


def _zone_minutes(offset: str | None, zone: str | None) -> int:
    if offset:
        offset = offset.replace(":", "")
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        if int(offset[3:5]) > 59 or minutes > 24 * 60:
            return 0
        return -minutes if offset[0] == "-" else minutes
    return _ZONES.get(zone.lower(), 0) if zone else 0


def _moment(
    year_text: str, month_name: str, day_text: str, hour_text: str | None, minute_text: str | None, second_text: str | None, zone: int
) -> Moment | None:
    month = _MONTH_NUMBER.get(month_name.lower())
    if month is None:
        return None
    year, day = int(year_text), int(day_text)
    if len(year_text) == 2:  # RFC 5322 §4.3
        year += 2000 if year < 50 else 1900
    elif len(year_text) == 3:
        year += 1900
    hour, minute, second = int(hour_text or 0), int(minute_text or 0), int(second_text or 0)
    if not (1 <= day <= _days_in(month, year) and 1 <= year <= _YEAR_MAX and hour < 24 and minute < 60 and second <= 60):
        return None
    return Moment(days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + min(second, 59) - zone * 60, zone)


def _days_in(month: int, year: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to a date of the proleptic Gregorian calendar."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


def civil_from_days(days: int) -> tuple[int, int, int]:
    """Year, month and day of the date `days` after 1970-01-01."""
    days += 719468
    era = days // 146097
    day_of_era = days - era * 146097
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year_of_era + era * 400 + (month <= 2), month, day


def format_date(seconds: float, zone_minutes: int = 0) -> str:
    """A moment as RFC 5322 §3.3 writes it: `Tue, 24 Nov 2026 08:31:05 +0000`."""
    local = int(seconds // 1) + zone_minutes * 60
    days, rest = divmod(local, 86400)
    year, month, day = civil_from_days(days)
    sign, zone = ("-", -zone_minutes) if zone_minutes < 0 else ("+", zone_minutes)
    return (
        f"{_DAY_NAMES[(days + 3) % 7]}, {day:02d} {_MONTH_NAMES[month - 1]} {year:04d} "
        f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d} {sign}{zone // 60:02d}{zone % 60:02d}"
    )

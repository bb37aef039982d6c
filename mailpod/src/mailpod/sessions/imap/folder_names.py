"""Folder names that clients may make, and the patterns of LIST."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from mailpod.errors import Reason
from mailpod.limits import imap_session as limits
from mailpod.store.types import SEPARATOR

INBOX = "INBOX"

# RFC 9051 §5.1, RFC 5530: a name that can't be, however the client asks.
BAD_NAME = Reason("bad-folder-name", 550, "5.1.3", "NO", "CANNOT", "", "This folder name is not possible")
NAME_TOO_LONG = Reason("folder-name-too-long", 550, "5.1.3", "NO", "CANNOT", "", "This folder name is too long")

_WILDCARD_REGEX_MAX = 3  # more wildcards than this could make a backtracking matcher slow: they go to the linear one


def canonical(name: str) -> str:
    """The form in which names are compared and kept: NFC (RFC 9051 §5.1), INBOX in capitals (also as the first level)."""
    name = unicodedata.normalize("NFC", name)
    if name[:5].upper() == INBOX and (len(name) == 5 or name[5] == SEPARATOR):
        return INBOX + name[5:]
    return name


def problem_with(name: str) -> Reason | None:
    """Why a folder of this (canonical) name can't be made; None when it can.

    RFC 9051 §5.1: no wildcards, no control characters, no empty levels; "." and ".." would mean something else in any export to files.
    """
    if len(name.encode("utf-8", "surrogatepass")) > limits.FOLDER_NAME_BYTES_MAX:
        return NAME_TOO_LONG
    levels = name.split(SEPARATOR)
    if len(levels) > limits.FOLDER_LEVELS_MAX:
        return NAME_TOO_LONG
    if any(not level or level in (".", "..") or level != level.strip() for level in levels):
        return BAD_NAME
    for char in name:
        if char in '%*\\"' or unicodedata.category(char) in ("Cc", "Cs", "Cn", "Zl", "Zp"):
            return BAD_NAME
    return None


def parents(name: str) -> list[str]:
    """The names of all levels above, outermost first."""
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:depth]) for depth in range(1, len(levels))]


def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that tells whether a name matches a LIST pattern (RFC 9051 §6.3.9): `*` is anything, `%` anything within a level."""
    pattern = re.sub(r"\*[*%]*", "*", unicodedata.normalize("NFC", pattern))
    pattern = re.sub(r"%+\*", "*", pattern)
    pattern = re.sub(r"%+", "%", pattern)
    folded = _matcher(pattern.upper())
    exact = _matcher(pattern)
    # INBOX is found in whatever case it is asked for (RFC 9051 §5.1).
    return lambda name: exact(name) or (name == INBOX and folded(name))


def _matcher(pattern: str) -> Callable[[str], bool]:
    if pattern == "*":
        return lambda _name: True
    if sum(pattern.count(wildcard) for wildcard in "*%") > _WILDCARD_REGEX_MAX:
        return lambda name: _linear_match(pattern, name)
    body = "".join({"*": ".*", "%": f"[^{SEPARATOR}]*"}.get(char) or re.escape(char) for char in pattern)
    compiled = re.compile(body, re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def _linear_match(pattern: str, name: str) -> bool:
    """Pattern positions as a bit set, one step a character of the name: no pattern makes it slow."""
    states = _closure(1, pattern)
    for char in name:
        following = 0
        rest = states
        while rest:
            low = rest & -rest
            rest ^= low
            at = low.bit_length() - 1
            if at < len(pattern):
                want = pattern[at]
                if want == "*" or (want == "%" and char != SEPARATOR):
                    following |= low
                elif want == char and want != "%":
                    following |= low << 1
        if not following:
            return False
        states = _closure(following, pattern)
    return bool(states >> len(pattern) & 1)


def _closure(states: int, pattern: str) -> int:
    """Wildcards may match nothing."""
    for at, char in enumerate(pattern):
        if char in "*%" and states >> at & 1:
            states |= 1 << (at + 1)
    return states

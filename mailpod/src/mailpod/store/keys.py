"""The only place that makes object keys. Readable on purpose: an administrator finds a mailbox with `aws s3 ls`.

A log's name is its key without the bucket prefix and without the trailing slash (`accounts/example.com/alice`, `transit/07`); pods
use it among each other.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from mailpod.errors import Refused
from mailpod.store.reasons import NOT_AN_ACCOUNT

FORMAT: Final = "v1"
_SEQ_MAX: Final = 2**64 - 1
_SAFE: Final = "+=@"  # beside letters, digits and "_.-~": no meaning in keys, URLs or shells
_SEGMENT_BYTES_MAX: Final = 900  # a key has at most 1024 bytes (S3)


def _segment(text: str) -> str:
    """One key segment: never empty, never "." or "..", no slash, pure ASCII; different for different texts."""
    encoded = quote(text, safe=_SAFE)
    if encoded.strip(".") == "":
        encoded = encoded.replace(".", "%2E")
    return encoded


def account_name(address: str) -> str:
    """The log name of an account. Raises `Refused` for what is no address."""
    local, at, domain = address.rpartition("@")
    name = f"accounts/{_segment(domain)}/{_segment(local)}"
    if not (local and at and domain) or len(name) > _SEGMENT_BYTES_MAX:
        raise Refused(NOT_AN_ACCOUNT, "no local part, no domain, or too long")
    return name


def address_of(name: str) -> str:
    """The address whose account has this log name."""
    _, domain, local = name.split("/")
    return f"{unquote(local)}@{unquote(domain)}"


def transit_name(number: int) -> str:
    """The log name of a transit log."""
    return f"transit/{number:02x}"


class Keys:
    """All keys below one bucket prefix."""

    def __init__(self, prefix: str) -> None:
        stripped = prefix.strip("/")
        self.root: Final = f"{stripped}/{FORMAT}/" if stripped else f"{FORMAT}/"

    def accounts(self) -> str:
        """LIST prefix of all accounts."""
        return f"{self.root}accounts/"

    def transit(self) -> str:
        """LIST prefix of all transit logs."""
        return f"{self.root}transit/"

    def name_of(self, key: str) -> str | None:
        """The log name to which a key belongs; None for a foreign key."""
        if not key.startswith(self.root):
            return None
        parts = key[len(self.root) :].split("/")
        if parts[0] == "accounts" and len(parts) >= 5:
            return "/".join(parts[:3])
        if parts[0] == "transit" and len(parts) >= 4:
            return "/".join(parts[:2])
        return None

    def after(self, name: str) -> str:
        """A key greater than all of the log's and smaller than any later log's: `~` sorts behind all that names contain."""
        return f"{self.root}{name}/~"

    def log(self, name: str) -> LogKeys:
        """The keys of one log."""
        return LogKeys(f"{self.root}{name}/")


class LogKeys:
    """The keys of one log."""

    __slots__ = ("_entry", "root")

    def __init__(self, root: str) -> None:
        self.root = root
        self._entry = f"{root}log/"

    def entry(self, seq: int) -> str:
        """Entry `seq`."""
        return f"{self._entry}{seq:016x}"

    def entries(self) -> str:
        """LIST prefix of the entries."""
        return self._entry

    def entry_seq(self, key: str) -> int:
        """The number of an entry's key. Raises ValueError for a foreign one."""
        return _hex(key, self._entry)

    def snapshot(self, seq: int) -> str:
        """The snapshot of the state at `seq`; inverted, so that the newest lists first."""
        return f"{self.root}snap/{_SEQ_MAX - seq:016x}"

    def snapshots(self) -> str:
        """LIST prefix of the snapshots, newest first."""
        return f"{self.root}snap/"

    def snapshot_seq(self, key: str) -> int:
        """The number of a snapshot's key. Raises ValueError for a foreign one."""
        return _SEQ_MAX - _hex(key, self.snapshots())

    def segment(self, incarnation: int, segment: str) -> str:
        """A summary segment."""
        return f"{self.segments(incarnation)}{segment}"

    def segments(self, incarnation: int) -> str:
        """LIST prefix of an incarnation's summary segments."""
        return f"{self.root}{incarnation:016x}/sum/"

    def big(self, incarnation: int, big: str) -> str:
        """A body of its own. Transit logs have no incarnations: 0."""
        return f"{self.bigs(incarnation)}{big}"

    def bigs(self, incarnation: int) -> str:
        """LIST prefix of an incarnation's big bodies."""
        return f"{self.root}{incarnation:016x}/big/" if incarnation else f"{self.root}big/"

    def incarnation(self, incarnation: int) -> str:
        """LIST prefix of all that belongs to one incarnation alone."""
        return f"{self.root}{incarnation:016x}/"


def _hex(key: str, prefix: str) -> int:
    tail = key[len(prefix) :]
    if not key.startswith(prefix) or len(tail) != 16:
        raise ValueError(f"not a numbered key: {key}")
    return int(tail, 16)

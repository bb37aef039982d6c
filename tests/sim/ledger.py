"""What the clients know: every message they sent, what became of it, and every removal they asked for.

Kept outside the system under test; its only source is what clients did and were told. Compared with the bucket when all is quiet.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from typing import Any, NamedTuple

MARK = b"Message-ID: <"
OK, FAILED, UNKNOWN = "ok", "fail", "unknown"


class Sent:
    """One message that a client sent, for one account: an append, or one recipient of a message with several."""

    __slots__ = ("account", "how", "ident", "incarnation", "outcome", "place", "raw", "seq")

    def __init__(self, ident: str, raw: bytes, account: str, incarnation: int | None, how: str) -> None:
        self.ident = ident
        self.raw = raw
        self.account = account
        self.incarnation = incarnation  # of the account that the client had open; None: transit, for whom it is at acceptance
        self.how = how  # append, transit, remote
        self.outcome = UNKNOWN
        self.place: tuple[int, int, int] | None = None  # folder id, UIDVALIDITY, UID that were told
        self.seq = 0  # MODSEQ that was told


class Told(NamedTuple):
    """One change that a client was told is done."""

    account: str
    incarnation: int
    kind: str  # flags, copy, move, expunge, create, delete, rename
    folder: int
    seq: int  # MODSEQ told, or the head afterwards where none is
    details: Any


class Ledger:
    """All of one run."""

    def __init__(self, seed: int, rng: random.Random) -> None:
        self._seed = seed
        self._rng = rng
        self._count = 0
        self.sent: dict[str, list[Sent]] = defaultdict(list)  # by ident; several for several recipients
        self.told: list[Told] = []
        self.removable: set[tuple[str, int, int, int]] = set()  # account, incarnation, folder, UID that somebody wanted to be gone
        self.dropped_folders: set[tuple[str, int, int]] = set()  # account, incarnation, folder id that somebody wanted to be gone
        self.emptied_inboxes: set[tuple[str, int]] = set()  # account, incarnation whose INBOX somebody renamed away
        self.erased: set[tuple[str, int]] = set()  # account, incarnation that somebody wanted erased
        self.operations = 0
        self.failures: list[str] = []

    def compose(self, size: int) -> tuple[str, bytes]:
        """A message that exists once in the world. Returns its identity and its bytes, about `size` long."""
        self._count += 1
        ident = f"{self._seed}-{self._count}"
        head = MARK + ident.encode() + b"@sim.example.com>\r\nSubject: message " + str(self._count).encode() + b"\r\n\r\n"
        noise = hashlib.shake_128(ident.encode()).hexdigest(max(1, (size - len(head)) // 2)).encode()
        return ident, head + noise + b"\r\n"

    def post(self, ident: str, raw: bytes, account: str, incarnation: int | None, how: str) -> Sent:
        """Note that `raw` is being sent to `account`."""
        sent = Sent(ident, raw, account, incarnation, how)
        self.sent[ident].append(sent)
        return sent

    def fail(self, what: str) -> None:
        """An invariant does not hold."""
        if len(self.failures) < 50:
            self.failures.append(what)


def ident_of(raw: bytes) -> str:
    """The identity of a message's bytes, "" when they are no message of ours."""
    at = raw.find(MARK)
    end = raw.find(b"@", at)
    if at < 0 or end < 0:
        return ""
    return raw[at + len(MARK) : end].decode("ascii", "replace")

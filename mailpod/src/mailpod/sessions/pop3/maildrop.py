"""One session's maildrop: a view of INBOX that never changes, and the messages marked as deleted in it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mailpod.limits import pop3 as limits
from mailpod.protocol.pop3.commands import CommandError
from mailpod.store.facade import Account, FolderView


class Maildrop:
    """Message numbers are rows of the view plus one (RFC 1939 §4)."""

    def __init__(self, account: Account, inbox: FolderView) -> None:
        self._account = account
        self.inbox = inbox
        self._sizes = inbox.sizes()
        self._uids = inbox.uids()
        self._octets = int(self._sizes.sum(dtype=np.int64))
        self.deleted: set[int] = set()  # rows

    def totals(self) -> tuple[int, int]:
        """Messages and bytes, without those marked as deleted."""
        return self.inbox.count - len(self.deleted), self._octets - sum(int(self._sizes[row]) for row in self.deleted)

    def row(self, message: int) -> int:
        """The row of a message number. Raises CommandError when there is none, or it is marked as deleted."""
        if not 1 <= message <= self.inbox.count:
            raise CommandError("No such message")
        if message - 1 in self.deleted:
            raise CommandError("Message is marked as deleted")
        return message - 1

    def size(self, row: int) -> int:
        """Bytes of the message as stored."""
        return int(self._sizes[row])

    def uidl(self, row: int) -> str:
        """RFC 1939 §7: unique and the same in every session. Made of IMAP's UIDVALIDITY and UID, which are never reused."""
        return f"{self.inbox.uidvalidity}.{self._uids[row]}"

    def listing(self, *, unique: bool) -> Iterator[bytes]:
        """The lines of LIST or UIDL, some thousands at a time."""
        prefix = f"{self.inbox.uidvalidity}." if unique else ""
        for start in range(0, self.inbox.count, limits.LISTING_LINES):
            column = (self._uids if unique else self._sizes)[start : start + limits.LISTING_LINES].tolist()
            lines = [f"{start + i} {prefix}{value}\r\n" for i, value in enumerate(column, 1)]
            if self.deleted:
                lines = [line for i, line in enumerate(lines) if start + i not in self.deleted]
            yield "".join(lines).encode("ascii")

    async def update(self) -> int:
        """Remove what is marked, in one commit; returns how many went. What others removed already is skipped."""
        if not self.deleted:
            return 0
        uids = self._uids[np.array(sorted(self.deleted), dtype=np.int64)]
        expunged = await self._account.expunge(self.inbox.id, uids, deleted_only=False)
        return len(expunged.uids)

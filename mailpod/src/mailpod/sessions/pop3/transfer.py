"""RETR and TOP: pieces from the store to the wire, as fast as the client reads and no faster, with the next messages fetched ahead."""

from __future__ import annotations

import asyncio

import numpy as np
import structlog

from mailpod.errors import MailError
from mailpod.limits import pop3 as limits
from mailpod.protocol.pop3 import responses
from mailpod.protocol.pop3.text import DotStuffer, TopCutter
from mailpod.sessions.pop3.maildrop import Maildrop
from mailpod.sessions.wire import Wire

log = structlog.get_logger(__name__)


class Truncated(Exception):
    """The store failed in the middle of a message that is already on its way."""


class Transfer:
    """Sends messages of one maildrop."""

    def __init__(self, wire: Wire, maildrop: Maildrop) -> None:
        self._wire = wire
        self._maildrop = maildrop
        self._previous = -2  # row of the last RETR
        self._ahead: dict[int, bytes] = {}  # small messages behind it, whole
        self._fetching: asyncio.Task[None] | None = None
        self._planned: frozenset[int] = frozenset()  # rows that it brings
        self._arrived = asyncio.Event()  # it brought one

    def close(self) -> None:
        """Stop fetching ahead, free what is held."""
        if self._fetching is not None:
            self._fetching.cancel()
            self._fetching = None
        self._planned = frozenset()
        self._ahead.clear()

    async def retrieve(self, row: int) -> None:
        """RFC 1939 §5 RETR. Raises MailError before the first byte of the response, `Truncated` after it."""
        sequential, self._previous = row == self._previous + 1, row
        if not sequential:
            self.close()
        body = await self._from_ahead(row)
        size = self._maildrop.size(row)
        if body is None:
            body = await self._maildrop.inbox.read(row, 0, limits.READ_PIECE_BYTES)
        if sequential and row > 0:
            self._fetch_ahead(row)
        stuffer = DotStuffer()
        self._wire.write(responses.ok(f"{size} octets"))
        sent = 0
        while True:
            sent += len(body)
            # The next piece is on its way from the store while this one leaves.
            rest = asyncio.ensure_future(self._maildrop.inbox.read(row, sent, limits.READ_PIECE_BYTES)) if sent < size else None
            try:
                self._wire.write(stuffer.feed(body))
                if self._wire.congested:
                    await self._wire.drained()
                if rest is None:
                    break
                body = await rest
            except MailError as error:
                raise Truncated(error.reason.name) from error
            finally:
                if rest is not None:
                    _abandon(rest)
            if not body:
                raise Truncated("shorter than its size")
        self._wire.write(stuffer.end())

    async def top(self, row: int, lines: int) -> None:
        """RFC 1939 §7 TOP. Raises as `retrieve`."""
        inbox, size = self._maildrop.inbox, self._maildrop.size(row)
        stuffer, cutter = DotStuffer(), TopCutter(lines)
        piece = await inbox.read(row, 0, limits.TOP_FIRST_PIECE_BYTES)
        self._wire.write(responses.ok())
        sent = 0
        while True:
            sent += len(piece)
            self._wire.write(stuffer.feed(cutter.feed(piece)))
            if self._wire.congested:
                await self._wire.drained()
            if cutter.done or sent >= size:
                break
            try:
                piece = await inbox.read(row, sent, limits.READ_PIECE_BYTES)
            except MailError as error:
                raise Truncated(error.reason.name) from error
            if not piece:
                raise Truncated("shorter than its size")
        self._wire.write(stuffer.end())

    async def _from_ahead(self, row: int) -> bytes | None:
        while row in self._planned and row not in self._ahead and self._fetching is not None and not self._fetching.done():
            self._arrived.clear()
            await self._arrived.wait()
        return self._ahead.pop(row, None)

    def _fetch_ahead(self, row: int) -> None:
        """Fetch the messages behind `row`, once half of the last batch is used up."""
        if self._fetching is not None and not self._fetching.done():
            return
        held = sum(map(len, self._ahead.values()))
        if held > limits.READ_AHEAD_BYTES // 2:
            return
        rows = []
        for following in range(row + 1, min(row + 1 + limits.READ_AHEAD_MESSAGES, self._maildrop.inbox.count)):
            if following in self._ahead or following in self._maildrop.deleted:
                continue
            size = self._maildrop.size(following)
            if size > limits.READ_PIECE_BYTES or held + size > limits.READ_AHEAD_BYTES:
                break
            held += size
            rows.append(following)
        if rows:
            self._planned = frozenset(rows)
            self._fetching = asyncio.get_running_loop().create_task(self._collect(rows))

    async def _collect(self, rows: list[int]) -> None:
        try:
            async for row, body in self._maildrop.inbox.read_many(np.array(rows, dtype=np.int64)):
                self._ahead[row] = body
                self._arrived.set()
        except MailError as error:
            log.debug("read-ahead-failed", reason=error.reason.name)  # RETR itself asks again, and tells the client
        finally:
            self._planned = frozenset()  # what did not come is not waited for
            self._arrived.set()


def _abandon(task: asyncio.Future[bytes]) -> None:
    """Stop a read whose result nobody waits for any more; its failure is nobody's either."""
    task.cancel()
    task.add_done_callback(lambda done: None if done.cancelled() else done.exception())

"""Search keys that have to read messages: BODY, TEXT, and header fields that no summary keeps.

Messages are read ahead in batches and looked through in a thread; between batches the session can be cancelled, and both time and bytes
of one command are capped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mailpod.errors import Refused
from mailpod.limits import imap_session as limits
from mailpod.message.summary import Summary
from mailpod.message.text import field_text, header_text, search_text
from mailpod.ports import Clock, Offload
from mailpod.protocol.imap import search_keys as keys
from mailpod.sessions.imap.answers import SEARCH_LIMIT
from mailpod.store.facade import FolderView


class BodySearch:
    """One command's reading, with what is left of its allowance."""

    def __init__(self, clock: Clock, offload: Offload) -> None:
        self._clock = clock
        self._offload = offload
        self._bytes_left = limits.SEARCH_READ_BYTES_MAX
        self._keys_left = limits.SEARCH_TEXT_KEYS_MAX
        self._deadline = clock.monotonic() + limits.SEARCH_SECONDS_MAX

    async def matching(self, view: FolderView, key: keys.Header | keys.Text, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of `candidates` whose message matches `key`."""
        self._keys_left -= 1
        if self._keys_left < 0:
            raise Refused(SEARCH_LIMIT, "keys")
        mask = np.zeros(len(candidates), np.bool_)
        rows = np.flatnonzero(candidates).astype(np.int64)
        for start in range(0, len(rows), limits.SEARCH_BATCH_ROWS):
            batch = rows[start : start + limits.SEARCH_BATCH_ROWS]
            summaries = dict(zip(batch.tolist(), await view.summaries(batch), strict=True))
            gathered: list[tuple[int, bytes]] = []
            gathered_bytes = 0
            async for row, raw in view.read_many(batch):
                gathered.append((row, raw))
                gathered_bytes += len(raw)
                if gathered_bytes >= limits.SEARCH_BATCH_BYTES:
                    await self._look(key, gathered, summaries, mask)
                    self._spend(gathered_bytes)
                    gathered, gathered_bytes = [], 0
            if gathered:
                await self._look(key, gathered, summaries, mask)
            self._spend(gathered_bytes)
        return mask

    async def _look(
        self, key: keys.Header | keys.Text, gathered: list[tuple[int, bytes]], summaries: dict[int, Summary], mask: NDArray[np.bool_]
    ) -> None:
        found = await self._offload(_rows_matching, key, gathered, [summaries[row] for row, _ in gathered])
        mask[found] = True

    def _spend(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise Refused(SEARCH_LIMIT, "bytes")
        if self._clock.monotonic() > self._deadline:
            raise Refused(SEARCH_LIMIT, "seconds")


def _rows_matching(key: keys.Header | keys.Text, gathered: list[tuple[int, bytes]], summaries: Sequence[Summary]) -> list[int]:
    """The rows of those that match; runs in a thread."""
    text = key.text.casefold()
    if isinstance(key, keys.Header):
        return [
            row
            for (row, raw), summary in zip(gathered, summaries, strict=True)
            if any(text in value for value in field_text(raw, key.field, summary.header_size))
        ]
    return [
        row
        for (row, raw), summary in zip(gathered, summaries, strict=True)
        if text in search_text(raw, summary.parts) or (key.header_too and text in header_text(raw, 0, summary.header_size))
    ]

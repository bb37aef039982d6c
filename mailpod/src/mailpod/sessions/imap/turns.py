"""Handing the event loop to others in the middle of long work."""

from __future__ import annotations

import types
from collections.abc import Generator


@types.coroutine
def next_turn() -> Generator[None]:
    """Let everything else that is ready run once. No time passes by any clock."""
    yield

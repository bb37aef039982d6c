"""A real store over a bucket in memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from mailpod.ports import Clock, ObjectStore
from mailpod.store import MailStore, StoreOptions
from tests.support.clocks import InlineOffload, ManualClock, SeededEntropy
from tests.support.memory_objects import MemoryObjects

_SEEDS = itertools.count(1)


def make_store(
    objects: ObjectStore | None = None,
    clock: Clock | None = None,
    *,
    seed: int | None = None,
    options: StoreOptions | None = None,
    on_commit: Callable[[str, int], None] | None = None,
    **more: Any,
) -> MailStore:
    """One pod's store; the same `objects` for several pods on one bucket. Nothing runs in the background before `start()`."""
    clock = clock or ManualClock()
    return MailStore(
        objects if objects is not None else MemoryObjects(clock),
        clock,
        SeededEntropy(next(_SEEDS) if seed is None else seed),
        InlineOffload(),
        options or StoreOptions(),
        on_commit or (lambda _log, _seq: None),
        **more,
    )


def message(subject: str = "Hello", body: str = "Body text.", sender: str = "alice@example.com") -> bytes:
    """A small well-formed message with CRLF line ends."""
    return (
        f"From: Alice <{sender}>\r\nTo: Bob <bob@example.com>\r\nSubject: {subject}\r\n"
        f"Date: Mon, 02 Jan 2026 03:04:05 +0000\r\nMessage-ID: <{subject.replace(' ', '-')}@example.com>\r\n\r\n{body}\r\n"
    ).encode()

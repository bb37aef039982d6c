"""What a log needs to know of the state machine on it: the account's and the transit log's are two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from mailpod.store.entry import Frame


class LogState(Protocol):
    """A state at entry `seq`."""

    seq: int
    commit: bytes  # of that entry; NO_ENTRY at 0
    tail_entries: int  # 0: a snapshot is due at this seq
    tail_bytes: int


S = TypeVar("S", bound=LogState)
S_co = TypeVar("S_co", bound=LogState, covariant=True)


class Builder(Protocol[S_co]):
    """The next state in the making."""

    @property
    def seq(self) -> int:
        """The entry's number."""

    @property
    def operations(self) -> Sequence[Any]:
        """What was done so far."""

    def apply(self, operation: Any) -> None:
        """Raises `Corrupt`."""

    def finish(self, commit: bytes, operations_bytes: int, base: int | None = None) -> S_co:
        """The state at `seq`; `base` when it became known only now."""


class Batch(Protocol):
    """An entry being evaluated."""

    builder: Any
    summaries: list[Frame]  # one a message
    bodies: list[Frame]  # one a message


class Machine(Protocol[S]):
    """A state machine."""

    kind: str  # telemetry label

    def empty(self) -> S:
        """The state before entry 1."""

    def begin(self, state: S, seq: int, base: int = 0) -> Builder[S]:
        """Begin entry `seq` on `state`; `base` is where its bodies begin."""

    def batch(self, builder: Any, now: float) -> Batch:
        """What requests are evaluated in."""

    def encode(self, operations: list[Any]) -> bytes:
        """Operations as they lie in an entry."""

    def decode(self, data: bytes) -> Sequence[Any]:
        """Raises `Corrupt`."""

    def dump(self, state: S) -> list[bytes]:
        """The state's self-contained form, for a snapshot. Runs in a thread."""

    def load(self, data: memoryview, seq: int, commit: bytes) -> S:
        """The reverse. Raises `Corrupt`. Runs in a thread."""

    def starts(self, operations: Sequence[Any]) -> bool:
        """Whether an entry with these operations stands for itself, so that nothing before it is needed (an erase)."""

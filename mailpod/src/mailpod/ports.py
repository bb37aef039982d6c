"""The ways out of the pure code: clock, randomness, object storage and threads, as Protocols.

Adapters implement them for real, the simulation implements them from a seed. Nothing below `adapters` and `servers`
may reach time, randomness, files or the network in any other way (the linter bans it).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Clock(Protocol):
    """One pod's clocks. Pods' clocks differ, jump and stand still; correctness must not depend on them."""

    def now(self) -> float:
        """Wall-clock time, seconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; may be longer, never shorter, by this clock's own measure."""


class Entropy(Protocol):
    """Randomness: unpredictable in production, reproducible from a seed in the simulation."""

    def bytes(self, count: int) -> bytes:
        """`count` random bytes."""

    def uniform(self) -> float:
        """A number in [0, 1), for jitter."""


class Offload(Protocol):
    """Runs CPU-heavy functions away from the event loop (a thread in production, at once in the simulation)."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` and return what it returns; its exceptions pass through."""


class PutOutcome(enum.Enum):
    """What a create-only PUT was answered, when it was answered clearly."""

    CREATED = "created"
    EXISTS = "exists"  # 412, and 409: somebody else's write, or an own earlier one whose reply was lost


class Stored(NamedTuple):
    """What a GET brought: the bytes asked for, and of the whole object its size and the store's Last-Modified."""

    data: bytes
    size: int  # bytes, of the whole object
    last_modified: float  # seconds since 1970-01-01 UTC, by the store's clock (whole seconds on most stores)


class Listed(NamedTuple):
    """One row of a LIST."""

    key: str
    size: int  # bytes
    last_modified: float  # seconds since 1970-01-01 UTC


class ObjectStore(Protocol):
    """An S3-compatible bucket. Needs read-after-write and LIST consistency, and create-only PUT (STORAGE.md, Stores).

    Every method raises `errors.StoreUnavailable` when no clear answer came (timeout, 5xx, connection lost): the operation may or
    may not have happened, and may still happen later. Adapters never repeat a `create` by themselves.
    """

    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        """PUT with `If-None-Match: *`: writes only where nothing is."""

    async def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        """PUT without a condition: overwrites. Idempotent, so adapters may repeat it."""

    async def get(self, key: str, start: int = 0, length: int | None = None) -> Stored:
        """GET the object, or the byte range [start, start+length), shorter at the object's end.

        Raises `errors.ObjectNotFound` when the store answered 404.
        """

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[Listed]:
        """All keys that begin with `prefix` and are greater than `start_after`, in key order, at most `limit`."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error. Idempotent."""

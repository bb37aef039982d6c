"""A bucket whose adapter can be replaced while it is used: rotated keys and a new CA take effect without a restart."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from mailpod.ports import Listed, ObjectStore, PutOutcome, Stored


class ReplaceableStore:
    """Hands every request to `inner` as it is at that moment; requests under way end on the one they began with."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    # Not `async`: the inner coroutine is returned as it is, so that the detour costs one call and no task switch.

    def create(self, key: str, data: bytes | Sequence[bytes]) -> Coroutine[Any, Any, PutOutcome]:
        """See `ports.ObjectStore`."""
        return self.inner.create(key, data)

    def put(self, key: str, data: bytes | Sequence[bytes]) -> Coroutine[Any, Any, None]:
        """See `ports.ObjectStore`."""
        return self.inner.put(key, data)

    def get(self, key: str, start: int = 0, length: int | None = None) -> Coroutine[Any, Any, Stored]:
        """See `ports.ObjectStore`."""
        return self.inner.get(key, start, length)

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Coroutine[Any, Any, list[Listed]]:
        """See `ports.ObjectStore`."""
        return self.inner.list(prefix, start_after=start_after, limit=limit)

    def delete(self, keys: Sequence[str]) -> Coroutine[Any, Any, None]:
        """See `ports.ObjectStore`."""
        return self.inner.delete(keys)

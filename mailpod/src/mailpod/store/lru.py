"""A map bounded in bytes; the entry unused for longest gives way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLru(Generic[K, V]):
    """`size` tells a value's bytes. One item may take at most a quarter of the whole."""

    def __init__(self, bytes_max: int, size: Callable[[V], int]) -> None:
        self._max = bytes_max
        self._size = size
        self._items: OrderedDict[K, V] = OrderedDict()
        self.bytes = 0

    def get(self, key: K) -> V | None:
        """The value, now the youngest."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Keep the value, if it is not too large."""
        size = self._size(value)
        if size * 4 > self._max:
            return
        old = self._items.pop(key, None)
        if old is not None:
            self.bytes -= self._size(old)
        self._items[key] = value
        self.bytes += size
        while self.bytes > self._max:
            _, gone = self._items.popitem(last=False)
            self.bytes -= self._size(gone)

    def drop(self, key: K) -> None:
        """Forget one."""
        old = self._items.pop(key, None)
        if old is not None:
            self.bytes -= self._size(old)

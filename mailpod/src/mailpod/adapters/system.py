"""Clock, randomness and threads of the machine."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class SystemClock:
    """`ports.Clock` of this machine."""

    def now(self) -> float:
        """Wall-clock time, seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC, seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await asyncio.sleep(seconds)


class SystemEntropy:
    """`ports.Entropy` from the kernel."""

    def bytes(self, count: int) -> bytes:
        """`count` bytes from getrandom(2)."""
        return os.urandom(count)

    def uniform(self) -> float:
        """A number in [0, 1); for jitter only, so the fast generator serves."""
        return random.random()  # noqa: S311 - not for secrets


class ThreadOffload:
    """`ports.Offload` to a few threads of its own, so that a slow DNS look-up in the loop's default executor never waits behind it."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="offload")

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Wait for what runs, end the threads."""
        self._executor.shutdown(wait=True)

"""One pod's machine: its clocks, its randomness and its threads, all from the seed. The pods' differ, on purpose."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tests.sim.loop import VirtualLoop, pause_step, sleep

P = ParamSpec("P")
T = TypeVar("T")

EPOCH_S = 1_790_000_000.0  # wall-clock time at the start of every run, by the bucket's clock


class SimClock:
    """`ports.Clock` of one pod: the wall clock is off, drifts, jumps and stands still; the monotonic one only runs at its own rate."""

    def __init__(self, loop: VirtualLoop, offset_s: float = 0.0, rate: float = 1.0) -> None:
        self._loop = loop
        self._rate = rate
        self._wall_at = loop.time()  # virtual time at which `_wall` was right
        self._wall = EPOCH_S + loop.time() + offset_s
        self._stopped = False
        self._lost = 0.0  # virtual seconds that the monotonic clock did not count
        self._held_at: float | None = None

    def now(self) -> float:
        """Wall-clock time, seconds since 1970-01-01 UTC, as far as this machine knows."""
        if self._stopped:
            return self._wall
        return self._wall + (self._loop.time() - self._wall_at) * self._rate

    def monotonic(self) -> float:
        """Seconds of this machine's own."""
        until = self._loop.time() if self._held_at is None else self._held_at
        return (until - self._lost) * self._rate

    async def sleep(self, seconds: float) -> None:
        """Wait until the monotonic clock has moved on by `seconds`."""
        if seconds <= 0:
            await pause_step(self._loop)
            return
        deadline = self.monotonic() + seconds
        while (left := deadline - self.monotonic()) > 1e-6:
            await sleep(self._loop, left / self._rate + 1e-7)

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._wall = self.now() + seconds
        self._wall_at = self._loop.time()

    def stop(self) -> None:
        """The wall clock stands still from now on."""
        self._wall = self.now()
        self._stopped = True

    def go_on(self) -> None:
        """The wall clock goes on from where it stood."""
        if self._stopped:
            self._stopped = False
            self._wall_at = self._loop.time()

    def hold(self) -> None:
        """The whole machine is suspended: both clocks stand still."""
        if self._held_at is None:
            self.stop()
            self._held_at = self._loop.time()

    def release(self) -> None:
        """The machine goes on; its clocks know nothing of the time between."""
        if self._held_at is not None:
            self._lost += self._loop.time() - self._held_at
            self._held_at = None
            self.go_on()


class SimEntropy:
    """`ports.Entropy` from the seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def bytes(self, count: int) -> bytes:
        """`count` bytes."""
        return self._rng.randbytes(count)

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return self._rng.random()


class SimOffload:
    """`ports.Offload`: calls the function in line, now and then a while later, so that the loop's other tasks go on meanwhile."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` and return what it returns."""
        draw = self._rng.random()
        if draw < 0.1:
            await sleep(self._loop, draw)
        result = function(*args, **kwargs)
        if draw > 0.9:
            await sleep(self._loop, 1.0 - draw)
        else:
            await pause_step(self._loop)
        return result

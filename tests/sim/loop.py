"""A virtual-time asyncio event loop that runs several simulated operating-system processes, deterministically.

Nothing here waits: when no callback is ready, time jumps to the next timer. Every callback belongs to the `Process` whose code scheduled it
(a context variable says which), so a process can be killed or paused *between any two steps of any of its tasks*:

* killed: its callbacks and timers are dropped, its coroutines stay suspended for ever. No `finally` of it runs while the world goes on.
* paused: its callbacks, timers and the replies that reach it are held back, in their order, until it is resumed.

Within one process the order of callbacks is asyncio's own (first in, first out). Which of several processes that could run does run next is
drawn from the seed: they are separate machines.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

_PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("simulated_process")


class SimulationStuck(Exception):
    """Nothing is ready and no timer is set, yet the awaited future is not done: a lost wake-up."""


class SimulationEndless(Exception):
    """The run took more steps than any honest run does: a busy loop."""


class SimHandle:
    """What `call_soon` gives back; far lighter than `asyncio.Handle`."""

    __slots__ = ("args", "callback", "context", "dropped", "process")

    def __init__(self, process: Process, context: contextvars.Context, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.process = process
        self.context = context
        self.callback = callback
        self.args = args
        self.dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped


class SimTimer(SimHandle):
    """What `call_at` and `call_later` give back."""

    __slots__ = ("deadline",)

    def __init__(
        self,
        deadline: float,
        process: Process,
        context: contextvars.Context,
        callback: Callable[..., object],
        args: tuple[object, ...],
    ) -> None:
        super().__init__(process, context, callback, args)
        self.deadline = deadline

    def when(self) -> float:
        return self.deadline


class SimFuture(asyncio.Future[Any]):
    """A future whose hash is its number, so that sets of futures have the same order in every run."""

    def __init__(self, number: int, loop: VirtualLoop) -> None:
        super().__init__(loop=loop)
        self._number = number

    def __hash__(self) -> int:
        return self._number


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number (see `SimFuture`)."""

    # Asked for by asyncio's registry of all tasks before __init__ is through.
    _number = 0

    def __init__(self, number: int, coroutine: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


class Process:
    """A group of tasks that lives, stands still and dies as one."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.alive = True
        self.paused = False
        self.steps = 0  # callbacks run so far
        self.on_death: list[Callable[[], None]] = []
        self._unseen: set[int] = set()  # ids of tasks; they are kept alive in _tasks
        self.unhandled: list[str] = []  # exceptions that no task of it caught
        self._ready: deque[SimHandle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []  # strong: a dead process's coroutines must not be collected, that would run their finally
        self._kill_at_step: int | None = None
        self._slot = -1  # index in the loop's list of processes that can run
        self._context = contextvars.copy_context()
        self._context.run(_PROCESS.set, self)

    def __repr__(self) -> str:
        return f"<process {self.name}>"

    def start(self, coroutine: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Run `coroutine` as a task of this process."""
        return self._context.copy().run(lambda: self.loop.create_task(coroutine, name=name))

    def kill(self) -> None:
        """SIGKILL: from now on not one step of it is run."""
        if not self.alive:
            return
        self.alive = False
        # A task that has just ended, and whoever awaits it was about to look at its exception: nobody's fault.
        self._unseen = {id(argument) for handle in self._ready for argument in handle.args}
        self._ready.clear()
        self.loop.park(self)
        for callback in self.on_death:
            callback()

    def kill_at_step(self, step: int) -> None:
        """SIGKILL as soon as it has run `step` callbacks in all (at once when it has already)."""
        if self.steps >= step:
            self.kill()
        else:
            self._kill_at_step = step

    def pause(self) -> None:
        """SIGSTOP."""
        if self.alive and not self.paused:
            self.paused = True
            self.loop.park(self)

    def resume(self) -> None:
        """SIGCONT: everything that came in meanwhile runs now, in the order in which it came."""
        if self.alive and self.paused:
            self.paused = False
            if self._ready:
                self.loop.unpark(self)

    def push(self, handle: SimHandle) -> None:
        """Make a callback ready; for the loop."""
        if not self.alive:
            return
        self._ready.append(handle)
        if self._slot < 0 and not self.paused:
            self.loop.unpark(self)

    def step(self) -> None:
        """Run the next callback; for the loop."""
        handle = self._ready.popleft()
        if not self._ready:
            self.loop.park(self)
        if handle.dropped:
            return
        self.steps += 1
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:
            self.unhandled.append(f"{handle.callback!r}: {error!r}")
        if self.steps == self._kill_at_step:
            self.kill()

    def failed_tasks(self) -> list[tuple[str, BaseException]]:
        """Tasks that ended with an exception that nobody has looked at."""
        failed = []
        for task in self._tasks:
            if id(task) in self._unseen:
                continue
            if task.done() and not task.cancelled() and task._log_traceback:  # type: ignore[attr-defined]  # asyncio's own mark
                error = task.exception()
                assert error is not None
                failed.append((task.get_name(), error))
        return failed


if TYPE_CHECKING:
    # For the type checker alone: the abstract class asks for sockets, signals and subprocesses, which no simulated process has.
    _Loop = asyncio.BaseEventLoop
else:
    _Loop = asyncio.AbstractEventLoop


class VirtualLoop(_Loop):
    """The loop. `world` is the process of everything that is no pod: the bucket, the network, the one who breaks things."""

    def __init__(self, rng: random.Random | None = None, start: float = 0.0) -> None:
        self._rng = rng
        self._now = start
        self._timers: list[tuple[float, int, SimTimer]] = []
        self._runnable: list[Process] = []
        self._count = 0
        self._closed = False
        self.steps = 0
        self.processes: list[Process] = []
        self.world = self.process("world")

    def process(self, name: str) -> Process:
        """A new process."""
        made = Process(self, name)
        self.processes.append(made)
        return made

    @staticmethod
    def current_process() -> Process:
        """The process whose code is running."""
        return _PROCESS.get()

    # Which processes can run.

    def park(self, process: Process) -> None:
        """Take a process from those that can run."""
        slot = process._slot
        if slot >= 0:
            last = self._runnable.pop()
            if last is not process:
                self._runnable[slot] = last
                last._slot = slot
            process._slot = -1

    def unpark(self, process: Process) -> None:
        """Put a process among those that can run."""
        if process._slot < 0:
            process._slot = len(self._runnable)
            self._runnable.append(process)

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._closed

    def call_soon(self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> Any:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS, self.world) if not self._closed else self.world
        handle = SimHandle(process, context, callback, args)
        process.push(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> Any:
        if context is None:
            context = contextvars.copy_context()
        return self._at(when, SimTimer(when, context.get(_PROCESS, self.world), context, callback, args))

    def in_world(self, delay: float, callback: Callable[..., object], *args: object) -> None:
        """Call `callback` after `delay` seconds as nobody's code: it happens whoever is dead or paused by then."""
        when = self._now + delay
        self._at(when, SimTimer(when, self.world, self.world._context, callback, args))

    def _at(self, when: float, timer: SimTimer) -> SimTimer:
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        return timer

    def create_future(self) -> asyncio.Future[Any]:
        self._count += 1
        return SimFuture(self._count, self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None, **_options: object
    ) -> asyncio.Task[Any]:
        self._count += 1
        task = SimTask(self._count, coro, loop=self, name=name or "task", context=context)
        (context or contextvars.copy_context()).get(_PROCESS, self.world)._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Called by asyncio for what nobody caught. A process that is dead, or a world that is over, has nothing to say."""
        if self._closed:
            return
        process = _PROCESS.get(self.world)
        process.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def shutdown_asyncgens(self) -> None:
        """There is nothing to shut down: a killed process does not clean up."""

    # Running.

    def run(self, coroutine: Coroutine[Any, Any, T], *, steps_max: int = 5_000_000) -> T:
        """Run `coroutine` as the world's main task to its end, everything else beside it."""
        task = self.world.start(coroutine, name="main")
        asyncio._set_running_loop(self)
        try:
            while not task.done():
                self._turn(steps_max)
        finally:
            asyncio._set_running_loop(None)
        return task.result()

    def _turn(self, steps_max: int) -> None:
        runnable = self._runnable
        if not runnable:
            self._advance()
            return
        self.steps += 1
        if self.steps > steps_max:
            raise SimulationEndless(f"{self.steps} steps at t={self._now:.3f}")
        count = len(runnable)
        runnable[int(self._rng.random() * count) if self._rng is not None and count > 1 else 0].step()

    def _advance(self) -> None:
        timers = self._timers
        if not timers:
            raise SimulationStuck(f"at t={self._now:.3f} nothing is left that could run")
        when = timers[0][0]
        self._now = max(self._now, when)
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer.dropped:
                timer.process.push(timer)

    def close(self) -> None:
        """End of the world: kill every process, throw away its coroutines, quietly."""
        if self._closed:
            return
        for process in self.processes:
            process.kill()
        self._closed = True
        self._timers.clear()
        hook = sys.unraisablehook
        sys.unraisablehook = lambda _unraisable: None
        try:
            for process in self.processes:
                for task in process._tasks:
                    if not task.done():
                        _discard(task)
                process._tasks.clear()
        finally:
            sys.unraisablehook = hook


def _discard(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch for tasks that never end
    try:
        coroutine = task.get_coro()
        assert coroutine is not None
        coroutine.close()  # type: ignore[union-attr]
    except BaseException:
        pass


async def pause_step(loop: VirtualLoop) -> None:
    """Let every other callback that is ready in this process go first."""
    future = loop.create_future()
    loop.call_soon(_resolve, future, None)
    await future


async def sleep(loop: VirtualLoop, seconds: float) -> None:
    """`asyncio.sleep` on the loop's own time, whatever the process's clocks say."""
    future = loop.create_future()
    timer = loop.call_later(seconds, _resolve, future, None)
    try:
        await future
    finally:
        timer.cancel()


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)

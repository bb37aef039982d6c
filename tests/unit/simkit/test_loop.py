"""The simulation's own ground: virtual time, and processes that die and stand still between any two steps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from tests.sim.loop import SimulationEndless, SimulationStuck, VirtualLoop, pause_step, sleep
from tests.sim.machine import SimClock, SimOffload


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop(random.Random(1))
    yield made
    made.close()


def test_time_jumps_to_the_next_timer_and_keeps_their_order(loop: VirtualLoop):
    """Otherwise a simulated day would take a day, or things would happen in an order that no day has."""
    seen: list[tuple[float, str]] = []

    async def nap(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((loop.time(), name))

    async def main() -> None:
        await asyncio.gather(nap("c", 86400.0), nap("a", 1.0), nap("b", 60.0))

    loop.run(main())
    assert seen == [(1.0, "a"), (60.0, "b"), (86400.0, "c")]


def test_timers_of_one_moment_run_in_the_order_in_which_they_were_set(loop: VirtualLoop):
    """A tie broken by memory addresses would make a failing seed pass on replay."""
    seen: list[int] = []

    async def main() -> None:
        for number in range(20):
            loop.call_at(5.0, seen.append, number)
        await asyncio.sleep(6)

    loop.run(main())
    assert seen == list(range(20))


def test_asyncio_s_own_tools_work_on_it(loop: VirtualLoop):
    """The store uses them: timeouts, locks, events, task groups, shields."""

    async def main() -> list[str]:
        said = []
        try:
            async with asyncio.timeout(10):
                await asyncio.Event().wait()
        except TimeoutError:
            said.append(f"timeout at {loop.time()}")
        lock = asyncio.Lock()

        async def hold(name: str) -> None:
            async with lock:
                await asyncio.sleep(1)
                said.append(name)

        async with asyncio.TaskGroup() as group:
            for name in "xyz":
                group.create_task(hold(name))
        inner = asyncio.ensure_future(hold("shielded"))
        outer = asyncio.shield(inner)
        asyncio.get_running_loop().call_soon(outer.cancel)
        with pytest.raises(asyncio.CancelledError):
            await outer
        await inner
        try:
            await asyncio.wait_for(asyncio.sleep(100), 1)
        except TimeoutError:
            said.append("waited")
        return said

    assert loop.run(main()) == ["timeout at 10.0", "x", "y", "z", "shielded", "waited"]


def test_a_killed_process_runs_no_further_step_not_even_its_finally(loop: VirtualLoop):
    """SIGKILL gives nobody time to tidy up; a simulation that tidies up would hide what a real kill leaves behind."""
    seen: list[str] = []
    pod = loop.process("pod")

    async def work() -> None:
        try:
            for number in range(10):
                seen.append(str(number))
                await asyncio.sleep(1)
        finally:
            seen.append("finally")

    async def main() -> None:
        task = pod.start(work())
        await asyncio.sleep(2.5)
        pod.kill()
        await asyncio.sleep(20)
        assert not task.done()

    loop.run(main())
    assert seen == ["0", "1", "2"]


def test_a_child_task_dies_with_the_process_of_its_parent(loop: VirtualLoop):
    """A background task that outlived its pod would do work that no dead pod does."""
    seen: list[int] = []
    pod = loop.process("pod")

    async def child() -> None:
        for number in range(10):
            await asyncio.sleep(1)
            seen.append(number)

    async def parent() -> None:
        asyncio.get_running_loop().call_later(4, seen.append, 99)
        await asyncio.create_task(child())

    async def main() -> None:
        pod.start(parent())
        await asyncio.sleep(2.5)
        pod.kill()
        await asyncio.sleep(20)

    loop.run(main())
    assert seen == [0, 1]


def test_kill_at_step_reaches_every_step(loop: VirtualLoop):
    """A kill must be possible at each await; one that is never reached is one crash never tried."""

    def reached(step: int) -> int:
        inner = VirtualLoop(random.Random(1))
        pod = inner.process("pod")
        count = [0]

        async def work() -> None:
            for _ in range(5):
                count[0] += 1
                await pause_step(inner)

        async def main() -> None:
            pod.kill_at_step(step)
            pod.start(work())
            await sleep(inner, 1)

        inner.run(main())
        inner.close()
        return count[0]

    # The coroutine's first step, then two callbacks a turn: the resolver's and the task's wake-up.
    assert [reached(step) for step in range(1, 12)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]


def test_a_paused_process_holds_everything_back_and_then_runs_it_in_order(loop: VirtualLoop):
    """SIGSTOP for a week: replies and timers wait, and come in the order in which they would have come."""
    seen: list[tuple[str, float]] = []
    pod = loop.process("pod")

    async def work() -> None:
        future = loop.create_future()
        loop.in_world(2, future.set_result, "reply")
        loop.call_later(1, lambda: seen.append(("timer", loop.time())))
        seen.append((await future, loop.time()))

    async def main() -> None:
        pod.start(work())
        await asyncio.sleep(0.5)
        pod.pause()
        await asyncio.sleep(7 * 86400)
        assert seen == []
        pod.resume()
        await asyncio.sleep(1)

    loop.run(main())
    assert seen == [("timer", 604800.5), ("reply", 604800.5)]


def test_a_process_can_die_while_paused(loop: VirtualLoop):
    """Its held-back callbacks must not come back with a late resume."""
    seen: list[int] = []
    pod = loop.process("pod")

    async def work() -> None:
        await asyncio.sleep(1)
        seen.append(1)

    async def main() -> None:
        pod.start(work())
        await asyncio.sleep(0.5)
        pod.pause()
        await asyncio.sleep(5)
        pod.kill()
        pod.resume()
        await asyncio.sleep(5)

    loop.run(main())
    assert seen == []


def test_processes_interleave_by_the_seed_and_each_stays_in_order():
    """Two pods that could both run do so in an order that varies with the seed, and with nothing else."""

    def order(seed: int) -> str:
        loop = VirtualLoop(random.Random(seed))
        seen: list[str] = []

        async def work(name: str) -> None:
            for number in range(6):
                seen.append(f"{name}{number}")
                await pause_step(loop)

        async def main() -> None:
            for name in "ab":
                loop.process(name).start(work(name))
            await sleep(loop, 1)

        loop.run(main())
        loop.close()
        for name in "ab":
            assert [item for item in seen if item[0] == name] == [f"{name}{number}" for number in range(6)]
        return "".join(seen)

    orders = [order(seed) for seed in range(10)]
    assert orders == [order(seed) for seed in range(10)]
    assert len(set(orders)) > 5


def test_sets_of_tasks_have_the_same_order_in_every_run():
    """asyncio keeps tasks in sets; ordered by address, cancelling them would differ from run to run."""

    def order() -> list[int]:
        loop = VirtualLoop()
        seen: list[int] = []

        async def nap(number: int) -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                seen.append(number)
                raise

        async def main() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(40):
                        group.create_task(nap(number))
                    await asyncio.sleep(1)
                    raise KeyError("stop")
            except* KeyError:
                pass

        loop.run(main())
        loop.close()
        return seen

    first = order()
    junk = [object() for _ in range(1000)]
    assert first == order()
    assert len(first) == 40
    del junk


def test_a_lost_wake_up_is_reported_not_waited_for(loop: VirtualLoop):
    """A future that nobody will ever resolve is a bug of the code under test."""

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(SimulationStuck):
        loop.run(main())


def test_a_busy_loop_is_reported(loop: VirtualLoop):
    """A store that spins would hang the suite."""

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(SimulationEndless):
        loop.run(main(), steps_max=1000)


def test_what_no_task_catches_is_kept_with_its_process(loop: VirtualLoop):
    """An exception that kills a background task of the store silently must come to light."""
    pod = loop.process("pod")

    async def work() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)

    async def main() -> None:
        pod.start(work())
        await asyncio.sleep(1)

    loop.run(main())
    assert len(pod.unhandled) == 1
    assert "ZeroDivisionError" in pod.unhandled[0]


def test_clocks_differ_jump_stand_still_and_drift(loop: VirtualLoop):
    """Each pod believes its own time; sleeping follows the monotonic clock, never the wall clock."""
    clock = SimClock(loop, offset_s=3600.0, rate=2.0)
    true = SimClock(loop)

    async def main() -> None:
        start, mono = clock.now() - true.now(), clock.monotonic()
        assert start == pytest.approx(3600.0)
        await clock.sleep(10)
        assert loop.time() == pytest.approx(5.0, abs=1e-3)
        assert clock.monotonic() - mono >= 10 - 1e-5
        clock.jump(-7200)
        assert clock.now() - true.now() == pytest.approx(3600.0 + 5.0 - 7200.0, abs=1e-2)
        clock.stop()
        before = clock.now()
        await clock.sleep(100)
        assert clock.now() == before
        clock.go_on()
        await clock.sleep(2)
        assert clock.now() == pytest.approx(before + 2)

    loop.run(main())


def test_a_suspended_machine_s_sleep_is_never_shorter_by_its_own_clock(loop: VirtualLoop):
    """`ports.Clock.sleep` promises it; a lease-like timer would otherwise run out in its sleep."""
    clock = SimClock(loop)
    pod = loop.process("pod")
    woke: list[tuple[float, float]] = []

    async def work() -> None:
        await clock.sleep(10)
        woke.append((loop.time(), clock.monotonic()))

    async def main() -> None:
        pod.start(work())
        await asyncio.sleep(3)
        pod.pause()
        clock.hold()
        await asyncio.sleep(1000)
        clock.release()
        pod.resume()
        await asyncio.sleep(100)

    loop.run(main())
    assert woke[0][0] == pytest.approx(1010.0, abs=1e-3)
    assert woke[0][1] == pytest.approx(10.0, abs=1e-3)


def test_offloaded_work_returns_and_raises(loop: VirtualLoop):
    """Its exceptions must pass through, as from a thread."""
    offload = SimOffload(loop, random.Random(3))

    async def main() -> None:
        for number in range(50):
            assert await offload(divmod, number, 7) == divmod(number, 7)
            with pytest.raises(ZeroDivisionError):
                await offload(divmod, 1, 0)

    loop.run(main())


def test_a_task_whose_exception_nobody_looks_at_is_found(loop: VirtualLoop):
    """A background task that died in silence is a bug that would otherwise show days later."""
    pod = loop.process("pod")

    async def work() -> None:
        raise KeyError("lost")

    async def main() -> None:
        pod.start(work(), name="worker")
        await asyncio.sleep(1)

    loop.run(main())
    ((name, error),) = pod.failed_tasks()
    assert (name, str(error)) == ("worker", "'lost'")

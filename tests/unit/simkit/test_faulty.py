"""The faulty bucket: each fault does what it says, and what is stored stays consistent throughout."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine

import pytest

from mailpod.errors import ObjectNotFound, StoreUnavailable
from mailpod.ports import PutOutcome
from tests.sim.faulty import REQUEST_TIMEOUT_S, Bucket, FaultRates, Port
from tests.sim.loop import Process, VirtualLoop, sleep

Scenario = Callable[[VirtualLoop, Bucket, Port, Process], Coroutine[None, None, None]]


def play(scenario: Scenario, seed: int = 1) -> None:
    loop = VirtualLoop(random.Random(seed))
    bucket = Bucket(loop, random.Random(seed))
    process = loop.process("pod")
    port = Port(bucket, process)
    failure: list[BaseException] = []

    async def guarded() -> None:
        try:
            await scenario(loop, bucket, port, process)
        except BaseException as error:
            failure.append(error)

    async def main() -> None:
        process.start(guarded())
        await sleep(loop, 10_000)

    loop.run(main())
    loop.close()
    if failure:
        raise failure[0]


def test_without_faults_it_is_a_bucket():
    """Create-only, ranges, listing in key order, deletion."""

    async def scenario(_loop: VirtualLoop, _bucket: Bucket, port: Port, _process: Process) -> None:
        assert await port.create("a/2", [b"one", b"two"]) is PutOutcome.CREATED
        assert await port.create("a/2", b"other") is PutOutcome.EXISTS
        await port.put("a/1", b"x")
        await port.put("b", b"y")
        assert (await port.get("a/2", 2, 3)) == (b"etw", 6, (await port.get("a/2")).last_modified)
        assert (await port.get("a/2", 4, 100)).data == b"wo"
        assert [row.key for row in await port.list("a/")] == ["a/1", "a/2"]
        assert [row.key for row in await port.list("a/", start_after="a/1", limit=5)] == ["a/2"]
        assert [row.key for row in await port.list("", limit=2)] == ["a/1", "a/2"]
        await port.delete(["a/1", "nothing"])
        with pytest.raises(ObjectNotFound):
            await port.get("a/1")

    play(scenario)


def test_a_ghost_put_is_unanswered_and_lands_later():
    """A PUT that times out and lands an hour later is what the log's commit ids are for."""

    async def scenario(loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        bucket.rates = FaultRates(ghost=1.0, ghost_s_max=3600.0)
        with pytest.raises(StoreUnavailable):
            await port.create("k", b"late")
        bucket.rates = FaultRates()
        assert loop.time() <= REQUEST_TIMEOUT_S
        if bucket.peek("k") is None:
            with pytest.raises(ObjectNotFound):
                await port.get("k")
        await sleep(loop, 3700)
        assert (await port.get("k")).data == b"late"

    for seed in range(20):
        play(scenario, seed)


def test_a_ghost_create_never_overwrites():
    """A create that lands late on a taken key must do nothing, as in a real bucket."""

    async def scenario(_loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        bucket.rates = FaultRates(ghost=1.0)
        with pytest.raises(StoreUnavailable):
            await port.create("k", b"ghost")
        bucket.rates = FaultRates()
        if await port.create("k", b"mine") is PutOutcome.CREATED:
            assert bucket.land_all() == 1
            assert (await port.get("k")).data == b"mine"

    for seed in range(20):
        play(scenario, seed)


def test_a_ghost_that_was_called_for_lands_once():
    """`land_one` lets the harness choose the worst moment; the timer behind it must not land it again."""

    async def scenario(loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        bucket.rates = FaultRates(ghost=1.0, ghost_s_max=5000.0)
        with pytest.raises(StoreUnavailable):
            await port.put("k", b"ghost")
        bucket.rates = FaultRates()
        if bucket.land_one():
            await port.put("k", b"newer")
            await sleep(loop, 5001)
            assert bucket.peek("k") == b"newer"
            assert not bucket.land_one()

    for seed in range(20):
        play(scenario, seed)


def test_a_lost_reply_has_landed():
    """The error says nothing about what happened."""

    async def scenario(_loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        bucket.rates = FaultRates(lost_reply=1.0)
        with pytest.raises(StoreUnavailable):
            await port.create("k", b"mine")
        assert bucket.peek("k") == b"mine"

    play(scenario)


def test_a_false_409_is_told_for_an_own_write_and_for_none():
    """Both occur: the client's own earlier try won, or the store merely saw a conflict."""
    landed = set()

    async def scenario(_loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        bucket.rates = FaultRates(false_exists=1.0, ghost_s_max=5000.0)
        assert await port.create("k", b"mine") is PutOutcome.EXISTS
        landed.add(bucket.peek("k"))

    for seed in range(30):
        play(scenario, seed)
    assert landed == {b"mine", None}


def test_a_refused_request_changes_nothing():
    """5xx before the effect."""

    async def scenario(_loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        bucket.rates = FaultRates(refused=1.0)
        for call in (port.create("k", b""), port.put("k", b""), port.get("k"), port.list(""), port.delete(["k"])):
            with pytest.raises(StoreUnavailable):
                await call
        assert bucket.all_keys() == []
        assert bucket.late_count() == 0
        assert bucket.injected["5xx"] == 5

    play(scenario)


def test_a_pod_that_is_cut_off_reaches_nothing_and_one_that_is_deaf_reaches_all():
    """The two halves of a broken network."""

    async def scenario(loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        port.cut_until = loop.time() + 100
        with pytest.raises(StoreUnavailable):
            await port.create("cut", b"")
        port.cut_until = -1.0
        port.deaf_until = loop.time() + 100
        with pytest.raises(StoreUnavailable):
            await port.create("deaf", b"")
        assert bucket.all_keys() == ["deaf"]

    play(scenario)


def test_some_requests_of_a_killed_pod_still_land():
    """A kill just before the reply: the write may be there or not."""
    outcomes = set()
    for seed in range(40):
        loop = VirtualLoop(random.Random(seed))
        bucket = Bucket(loop, random.Random(seed))
        process = loop.process("pod")
        port = Port(bucket, process)

        async def main(loop: VirtualLoop = loop, process: Process = process, port: Port = port) -> None:
            async def work() -> None:
                await port.create("k", b"x")

            process.start(work())
            await sleep(loop, 0.001)
            process.kill()
            await sleep(loop, 100)

        loop.run(main())
        loop.close()
        outcomes.add(bucket.peek("k"))
    assert outcomes == {b"x", None}


def test_last_modified_is_whole_seconds_of_the_bucket_s_own_clock():
    """Landing times are the store's, not the pods'."""

    async def scenario(loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        bucket.clock_offset_s = -500.0
        await sleep(loop, 10.5)
        await port.put("k", b"")
        modified = (await port.get("k")).last_modified
        assert modified == int(modified)
        assert abs(modified - bucket.now()) < 2

    play(scenario)


def test_damage_is_done_and_counted():
    """Bit flips, torn and missing objects on demand."""

    async def scenario(_loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
        body = bytes(200)
        for key in ("flip", "torn", "missing"):
            await port.put(key, body)
            bucket.damage(key, key)
        flipped = (await port.get("flip")).data
        assert len(flipped) == 200
        assert sum(value.bit_count() for value in flipped) == 1
        assert len((await port.get("torn")).data) < 200
        with pytest.raises(ObjectNotFound):
            await port.get("missing")
        bucket.put_back("missing", body)
        assert (await port.get("missing")).data == body
        bucket.flip_rate = 1.0
        assert (await port.get("missing")).data != body
        assert bucket.peek("missing") == body

    play(scenario)


def test_the_same_seed_gives_the_same_run():
    """Replaying a failing seed must show the failure again."""

    def run(seed: int) -> list[str]:
        lines: list[str] = []

        async def scenario(loop: VirtualLoop, bucket: Bucket, port: Port, _process: Process) -> None:
            bucket.trace = lambda line: lines.append(f"{loop.time():.6f} {line}")
            bucket.rates = FaultRates(0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
            for number in range(60):
                try:
                    await port.create(f"k{number % 7}", str(number).encode())
                    await port.get(f"k{number % 5}")
                except (StoreUnavailable, ObjectNotFound):
                    continue

        play(scenario, seed)
        return lines

    assert run(5) == run(5)
    assert run(5) != run(6)

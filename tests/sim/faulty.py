"""A bucket in memory that behaves as buckets do on bad days: `ports.ObjectStore` on virtual time, every fault drawn from the seed.

A request travels (it may be lost), takes effect at one instant (it may do so much later than anybody waits, or twice), and its reply
travels back (it may be lost or be wrong). What is in the bucket is always consistent: a GET or LIST sees every effect before it.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mailpod.errors import ObjectNotFound, StoreUnavailable
from mailpod.ports import Listed, PutOutcome, Stored
from tests.sim.loop import Process, VirtualLoop
from tests.sim.machine import EPOCH_S

REQUEST_TIMEOUT_S = 30.0  # as the real adapter's


class FaultRates(NamedTuple):
    """Of each request, how probable each fault is. The rest goes well."""

    refused: float = 0.0  # 5xx: nothing happens
    lost_reply: float = 0.0  # it happens, the answer does not arrive
    ghost: float = 0.0  # writes only: no answer; it happens later, perhaps much later
    false_exists: float = 0.0  # creates only: 409/412 although it was this very request that landed, or although nothing is there
    repeated: float = 0.0  # writes only: it goes well, and happens once more later (a proxy repeats it)
    slow: float = 0.0  # answered after seconds
    ghost_s_max: float = 600.0

    def scaled(self, factor: float) -> FaultRates:
        """All probabilities times `factor`."""
        return FaultRates._make((*(value * factor for value in self[:-1]), self.ghost_s_max))


class Write(NamedTuple):
    """One effect on the bucket, for observers."""

    at: float  # virtual time
    pod: str
    operation: str  # create, put, delete, damage
    key: str
    before: bytes | None
    after: bytes | None


class _Late(NamedTuple):
    """An effect that has still to happen."""

    number: int
    process: Process
    kind: str
    effect: Callable[[], object]


class Bucket:
    """What is stored, the rules by which it fails, and everything that is still under way to it."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, *, clock_offset_s: float = 0.0) -> None:
        self.loop = loop
        self.rates = FaultRates()
        self.latency_s = 0.02
        self.clock_offset_s = clock_offset_s  # the bucket's nodes' clocks against EPOCH_S
        self.clock_skew_s = 0.0  # how far its nodes differ among themselves
        self.injected: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.observers: list[Callable[[Write], None]] = []
        self.flip_rate = 0.0  # of GETs, answered with one wrong bit
        self.burst_until = -1.0  # until then most requests are answered 5xx
        self.trace: Callable[[str], None] | None = None
        self._rng = rng
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._keys: list[str] = []
        self._late: dict[int, _Late] = {}
        self._count = 0

    # What is there, for the harness: no faults, no time.

    def all_keys(self, prefix: str = "") -> list[str]:
        """All keys that begin with `prefix`, in order."""
        return self._keys[bisect_left(self._keys, prefix) : bisect_left(self._keys, prefix + "\U0010ffff")]

    def peek(self, key: str) -> bytes | None:
        """An object's bytes."""
        found = self._objects.get(key)
        return found[0] if found is not None else None

    def last_modified(self, key: str) -> float:
        """An object's time by the bucket's clock."""
        return self._objects[key][1]

    def late_count(self) -> int:
        """How many effects are still under way."""
        return len(self._late)

    def now(self) -> float:
        """The bucket's clock."""
        return EPOCH_S + self.loop.time() + self.clock_offset_s

    def land_all(self) -> int:
        """Let everything happen that is still under way, in a random order. Returns how many did."""
        waiting = list(self._late.values())
        self._rng.shuffle(waiting)
        for late in waiting:
            self._land(late.number)
        return len(waiting)

    def land_one(self) -> bool:
        """Let one of the requests happen that nobody waits for any more."""
        ghosts = [number for number, late in self._late.items() if late.kind != "request"]
        if not ghosts:
            return False
        self._land(ghosts[int(self._rng.random() * len(ghosts))])
        return True

    def lose_late_of(self, process: Process) -> None:
        """A process died: some of what it had under way never arrives."""
        for number in [number for number, late in self._late.items() if late.process is process]:
            if self._rng.random() < 0.3:
                del self._late[number]
                self.injected["request lost with its pod"] += 1

    def damage(self, key: str, how: str) -> None:
        """Delete an object, cut it short, or flip a bit of it, as a bad disk would."""
        before, modified = self._objects[key]
        after: bytes | None
        if how == "missing":
            after = None
        elif how == "torn":
            after = before[: int(self._rng.random() * len(before))]
        else:
            after = self._flip(before)
        self.injected[f"object {how}"] += 1
        if after is None:
            del self._objects[key]
            self._keys.remove(key)
        else:
            self._objects[key] = (after, modified)
        self._tell("", "damage", key, before, after)

    def put_back(self, key: str, data: bytes) -> None:
        """Undo `damage`: the object is what it was, its time included."""
        if key not in self._objects:
            insort(self._keys, key)
        self._objects[key] = (data, self._objects[key][1] if key in self._objects else float(int(self.now())))

    # Effects.

    def _modified(self) -> float:
        skew = (self._rng.random() - 0.5) * 2 * self.clock_skew_s if self.clock_skew_s else 0.0
        return float(int(self.now() + skew))

    def _store(self, pod: str, operation: str, key: str, data: bytes) -> None:
        found = self._objects.get(key)
        if found is None:
            insort(self._keys, key)
        self._objects[key] = (data, self._modified())
        self._tell(pod, operation, key, found[0] if found is not None else None, data)

    def create(self, pod: str, key: str, data: bytes) -> PutOutcome:
        """The effect of a create-only PUT."""
        if key in self._objects:
            return PutOutcome.EXISTS
        self._store(pod, "create", key, data)
        return PutOutcome.CREATED

    def put(self, pod: str, key: str, data: bytes) -> None:
        """The effect of an overwrite."""
        self._store(pod, "put", key, data)

    def get(self, key: str, start: int, length: int | None) -> Stored:
        """The effect of a GET."""
        found = self._objects.get(key)
        if found is None:
            raise ObjectNotFound(key)
        data, modified = found
        part = data if start == 0 and length is None else data[start : len(data) if length is None else start + length]
        if self.flip_rate and part and self._rng.random() < self.flip_rate:
            self.injected["bit flipped in a reply"] += 1
            part = self._flip(part)
        return Stored(part, len(data), modified)

    def list(self, prefix: str, start_after: str, limit: int | None) -> list[Listed]:
        """The effect of a LIST."""
        keys = self._keys
        at = max(bisect_left(keys, prefix), bisect_right(keys, start_after) if start_after else 0)
        rows = []
        while at < len(keys) and keys[at].startswith(prefix) and (limit is None or len(rows) < limit):
            data, modified = self._objects[keys[at]]
            rows.append(Listed(keys[at], len(data), modified))
            at += 1
        return rows

    def delete(self, pod: str, keys: Sequence[str]) -> None:
        """The effect of a DELETE."""
        for key in keys:
            found = self._objects.pop(key, None)
            if found is not None:
                self._keys.remove(key)
                self._tell(pod, "delete", key, found[0], None)

    def _tell(self, pod: str, operation: str, key: str, before: bytes | None, after: bytes | None) -> None:
        if self.trace is not None:
            self.trace(f"bucket {pod or '-'} {operation} {key} ({len(after) if after is not None else 'gone'})")
        if self.observers:
            write = Write(self.loop.time(), pod, operation, key, before, after)
            for observer in self.observers:
                observer(write)

    def _flip(self, data: bytes) -> bytes:
        flipped = bytearray(data)
        if flipped:
            flipped[int(self._rng.random() * len(flipped))] ^= 1 << int(self._rng.random() * 8)
        return bytes(flipped)

    # Travelling.

    def later(self, delay: float, process: Process, kind: str, effect: Callable[[], object]) -> None:
        """Let `effect` happen after `delay`."""
        self._count += 1
        self._late[self._count] = _Late(self._count, process, kind, effect)
        self.loop.in_world(delay, self._land, self._count)

    def _land(self, number: int) -> None:
        late = self._late.pop(number, None)
        if late is not None:
            late.effect()

    def flight_s(self) -> float:
        """How long a request or a reply travels."""
        return self.latency_s * (0.5 + self._rng.random())

    def ghost_s(self) -> float:
        """How much later a ghost lands: any order of magnitude."""
        return math.exp(self._rng.random() * math.log(self.rates.ghost_s_max * 100)) / 100

    def draw(self, writes: bool, creates: bool) -> str:
        """The fault of the next request, "" for none."""
        rng = self._rng
        if self.loop.time() < self.burst_until and rng.random() < 0.8:
            return "5xx in a burst"
        rates = self.rates
        draw = rng.random()
        for kind, rate, possible in (
            ("5xx", rates.refused, True),
            ("lost reply", rates.lost_reply, True),
            ("ghost write", rates.ghost, writes),
            ("false 409", rates.false_exists, creates),
            ("repeated write", rates.repeated, writes),
            ("slow", rates.slow, True),
        ):
            if possible:
                if draw < rate:
                    return kind
                draw -= rate
        return ""


class Port:
    """One pod's way to the bucket: `ports.ObjectStore`."""

    def __init__(self, bucket: Bucket, process: Process) -> None:
        self._bucket = bucket
        self._process = process
        self.cut_until = -1.0  # until then nothing of this pod reaches the bucket
        self.deaf_until = -1.0  # until then no reply reaches this pod
        self.requests = 0
        process.on_death.append(lambda: bucket.lose_late_of(process))

    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        """PUT with `If-None-Match: *`."""
        body = _joined(data)
        outcome: PutOutcome = await self._request("create", key, lambda: self._bucket.create(self._process.name, key, body))
        return outcome

    async def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        """PUT without a condition."""
        body = _joined(data)
        await self._request("put", key, lambda: self._bucket.put(self._process.name, key, body))

    async def get(self, key: str, start: int = 0, length: int | None = None) -> Stored:
        """GET of a range."""
        stored: Stored = await self._request("get", key, lambda: self._bucket.get(key, start, length))
        return stored

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[Listed]:
        """LIST."""
        rows: list[Listed] = await self._request("list", prefix, lambda: self._bucket.list(prefix, start_after, limit))
        return rows

    async def delete(self, keys: Sequence[str]) -> None:
        """DELETE of several."""
        names = list(keys)
        await self._request("delete", ",".join(names), lambda: self._bucket.delete(self._process.name, names))

    async def _request(self, operation: str, what: str, effect: Callable[[], Any]) -> Any:
        bucket = self._bucket
        loop = bucket.loop
        writes = operation in ("create", "put", "delete")
        bucket.requests[operation] += 1
        self.requests += 1
        reply = loop.create_future()
        now = loop.time()
        if now < self.cut_until:
            fault = "cut off"
        elif now < self.deaf_until:
            fault = "deaf"
        else:
            fault = bucket.draw(writes, operation == "create")
        if fault:
            bucket.injected[fault] += 1
        if bucket.trace is not None:
            bucket.trace(f"{self._process.name} -> {operation} {what}" + (f" [{fault}]" if fault else ""))
        self._dispatch(fault, operation, what, effect, reply)
        result = await reply
        if bucket.trace is not None:
            bucket.trace(f"{self._process.name} <- {operation} {what}: {_short(result)}")
        if isinstance(result, Exception):
            raise result
        return result

    def _dispatch(self, fault: str, operation: str, what: str, effect: Callable[[], Any], reply: Any) -> None:
        """Send the request on its way, and its reply, as `fault` says."""
        bucket = self._bucket
        there, back = bucket.flight_s(), bucket.flight_s()

        def answer(result: object, delay: float) -> None:
            bucket.loop.in_world(delay, _answer, reply, result)

        def arrive(delay: float, judge: Callable[[object], object] = lambda result: result) -> None:
            def happen() -> None:
                try:
                    result = effect()
                except ObjectNotFound as missing:
                    result = missing
                answer(judge(result), delay)

            bucket.later(there, self._process, "request", happen)

        def silence(said: str) -> StoreUnavailable:
            return StoreUnavailable(f"{operation} {what}: {said}")

        match fault:
            case "5xx" | "5xx in a burst":
                answer(silence("503"), there + back)
            case "cut off":
                answer(silence("connection failed"), min(there + back, REQUEST_TIMEOUT_S))
            case "lost reply" | "deaf":
                soon = bucket._rng.random() < 0.5  # the connection breaks at once, or the client waits for its timeout
                arrive(back if soon else REQUEST_TIMEOUT_S, lambda _result: silence("connection lost"))
            case "ghost write":
                after = there + back if bucket._rng.random() < 0.5 else REQUEST_TIMEOUT_S
                answer(silence("timeout"), after)
                bucket.later(bucket.ghost_s(), self._process, "ghost", effect)
            case "false 409":
                answer_is_exists = PutOutcome.EXISTS
                if bucket._rng.random() < 0.6:
                    arrive(back, lambda _result: answer_is_exists)
                else:
                    answer(answer_is_exists, there + back)
                    if bucket._rng.random() < 0.3:
                        bucket.later(bucket.ghost_s(), self._process, "ghost", effect)
            case "repeated write":
                arrive(back)
                bucket.later(bucket.ghost_s(), self._process, "ghost", effect)
            case "slow":
                there *= 1 + 50 * bucket._rng.random()
                back *= 1 + 50 * bucket._rng.random()
                arrive(back)
            case _:
                arrive(back)


def _answer(reply: Any, result: object) -> None:
    if not reply.done():
        reply.set_result(result)


def _joined(data: bytes | Sequence[bytes]) -> bytes:
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else b"".join(data)


def _short(result: object) -> str:
    if isinstance(result, Stored):
        return f"{len(result.data)} of {result.size}"
    if isinstance(result, list):
        return f"{len(result)} rows"
    if isinstance(result, ObjectNotFound):
        return "404"
    return str(result) if isinstance(result, Exception | PutOutcome) else "done"

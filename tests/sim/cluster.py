"""The pods, and the one who breaks them: which faults a seed has, and when they strike."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from mailpod.store import MailStore
from tests.sim.faulty import Bucket, FaultRates, Port
from tests.sim.loop import Process, VirtualLoop, sleep
from tests.sim.machine import SimClock, SimEntropy, SimOffload


class Profile(NamedTuple):
    """What kind of a day a seed is."""

    pods: int = 3
    accounts: int = 2
    clients: int = 2  # a pod
    operations: int = 60  # of all clients together
    rates: FaultRates = FaultRates()
    latency_s: float = 0.02
    think_s: float = 1.0  # mean time between two operations of a client
    strike_every: float = 4.0  # operations, on the average, for one fault of a pod, its machine or its network; 0: none
    kills: bool = True
    pauses: bool = True
    clocks: bool = True
    damage: bool = True  # of derived objects
    flips: bool = False  # of single bits of anything, in replies and at rest
    background: bool = False  # the store's own background work runs
    drains: bool = True  # pods are shut down in good order, too
    pause_s_max: float = 1e5
    retention_s: float = 600.0
    weights: dict[str, float] | None = None  # of the operations; None: the usual ones

    @staticmethod
    def draw(rng: random.Random) -> Profile:
        """A day of the seed's choosing, from sunny to terrible."""
        weather = rng.random()
        if weather < 0.1:
            rates = FaultRates()
        else:
            bad = 0.02 if weather < 0.4 else 0.06 if weather < 0.85 else 0.15
            rates = FaultRates._make((*(bad * rng.random() for _ in range(6)), 10 ** rng.uniform(0, 4)))
        think_s = rng.choice((0.02, 0.05, 0.3, 2.0, 20.0))
        return Profile(
            pods=rng.choice((2, 2, 2, 3, 3, 4, 5, 6, 8)),
            accounts=rng.choice((1, 1, 2, 2, 3)),
            clients=rng.choice((1, 1, 2)),
            operations=rng.randrange(30, 70),
            rates=rates,
            latency_s=rng.choice((0.005, 0.02, 0.2)),
            think_s=think_s,
            strike_every=0.0 if weather < 0.1 else rng.choice((2.0, 4.0, 10.0)),
            kills=rng.random() < 0.7,
            pauses=rng.random() < 0.7,
            clocks=rng.random() < 0.6,
            damage=rng.random() < 0.5,
            flips=rng.random() < 0.08,
            background=(background := rng.random() < 0.2),
            drains=rng.random() < 0.5,
            pause_s_max=600.0 if background else 1e5,
            retention_s=max(2.0, think_s * rng.choice((3.0, 10.0, 100.0))),
        )


class Pod:
    """One process with its machine and its store."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        loop = cluster.loop
        rng = cluster.rng
        self.name = name
        self.process: Process = loop.process(name)
        self.port = Port(cluster.bucket, self.process)
        wrong = cluster.profile.clocks
        self.clock = SimClock(
            loop,
            offset_s=rng.choice((0.0, rng.uniform(-2, 2), rng.uniform(-3600, 3600))) if wrong else 0.0,
            rate=rng.choice((1.0, 1.0, rng.uniform(0.7, 1.4))) if wrong else 1.0,
        )
        self.entropy = SimEntropy(random.Random(rng.getrandbits(64)))
        self.offload = SimOffload(loop, random.Random(rng.getrandbits(64)))
        self.store: MailStore = cluster.make_store(self)
        self.retiring = False

    def usable(self) -> bool:
        """Whether it runs."""
        return self.process.alive and not self.process.paused


class Cluster:
    """All pods of one run, on one bucket."""

    def __init__(self, loop: VirtualLoop, bucket: Bucket, rng: random.Random, profile: Profile) -> None:
        self.loop = loop
        self.bucket = bucket
        self.rng = rng
        self.profile = profile
        self.pods: list[Pod] = []
        self.make_store: Callable[[Pod], MailStore] = _no_store
        self.on_start: Callable[[Pod], None] = lambda _pod: None
        self.on_death: Callable[[Pod], None] = lambda _pod: None
        self.log: Callable[[str], None] = lambda _line: None
        self.damaged: list[tuple[str, bytes, bytes | None]] = []  # key, what was there, what the damage left
        self._names = 0

    def mend(self) -> None:
        """Put back what bits were flipped of, unless somebody has overwritten it since."""
        while self.damaged:
            key, before, after = self.damaged.pop()
            if self.bucket.peek(key) == after:
                self.bucket.put_back(key, before)

    def start_pod(self, name: str = "") -> Pod:
        """A new pod; `name` is given when a container restarts under its pod's old name."""
        if not name:
            self._names += 1
            name = f"pod-{self._names}"
        pod = Pod(self, name)
        self.pods.append(pod)
        self.log(f"start {name}")
        self.on_start(pod)
        return pod

    def living(self) -> list[Pod]:
        """Pods that are not dead, paused ones too."""
        return [pod for pod in self.pods if pod.process.alive]

    def kill(self, pod: Pod) -> None:
        """SIGKILL."""
        self.log(f"kill {pod.name}")
        self.bucket.injected["kill"] += 1
        pod.process.kill()
        self.on_death(pod)

    def pause(self, pod: Pod, seconds: float, *, suspend: bool) -> None:
        """SIGSTOP for so long; `suspend`: the whole machine, with its clocks."""
        self.log(f"pause {pod.name} for {seconds:.1f}{' suspended' if suspend else ''}")
        self.bucket.injected["suspended machine" if suspend else "pause"] += 1
        pod.process.pause()
        if suspend:
            pod.clock.hold()
        self.loop.in_world(seconds, self.resume, pod)

    def resume(self, pod: Pod) -> None:
        """SIGCONT."""
        if pod.process.alive and pod.process.paused:
            self.log(f"resume {pod.name}")
            pod.clock.release()
            pod.process.resume()


def _no_store(pod: Pod) -> MailStore:
    raise AssertionError(f"no store for {pod.name}")


class Nemesis:
    """Strikes while clients work, until it is told to stop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rng = cluster.rng
        self.stopped = False
        profile = cluster.profile
        strikes: list[tuple[float, Callable[[Pod], None]]] = [
            (2.0, self._burst),
            (2.0, self._cut),
            (3.0, self._land),
        ]
        if profile.kills:
            strikes += [(4.0, self._kill), (4.0, self._kill_soon)]
        if profile.pauses:
            strikes += [(5.0, self._pause)]
        if profile.clocks:
            strikes += [(3.0, self._clock)]
        if profile.drains:
            strikes += [(1.0, self._drain)]
        if profile.flips:
            strikes += [(3.0, self._flip)]
        if profile.damage:
            strikes += [(2.0, self._damage)]
        self._strikes = [strike for _, strike in strikes]
        self._weights = [weight for weight, _ in strikes]

    def operation_begins(self) -> None:
        """A client begins something: strike soon, now and then."""
        profile = self._cluster.profile
        rng = self._rng
        if profile.strike_every and not self.stopped and rng.random() < 1 / profile.strike_every:
            soon = profile.latency_s * 6 if rng.random() < 0.6 else profile.think_s
            self._cluster.loop.in_world(rng.random() * soon, self._strike)

    def _strike(self) -> None:
        living = self._cluster.living()
        if living and not self.stopped:
            self._rng.choices(self._strikes, self._weights)[0](self._rng.choice(living))

    def _replace(self, pod: Pod) -> None:
        """Another takes the dead one's place, at once or later, sometimes under the same name."""
        name = pod.name if self._rng.random() < 0.4 else ""
        self._cluster.loop.in_world(self._rng.choice((0.0, 1.0, 30.0)), self._start, name)

    def _start(self, name: str) -> None:
        if not self.stopped:
            self._cluster.start_pod(name)

    def _kill(self, pod: Pod) -> None:
        if pod.process.alive:
            self._cluster.kill(pod)
            self._replace(pod)

    def _kill_soon(self, pod: Pod) -> None:
        """At one of its next awaits, whichever that is."""
        steps = int(math.exp(self._rng.random() * math.log(200)))
        self._cluster.log(f"kill {pod.name} in {steps} steps")
        self.kill_at_step(pod, pod.process.steps + steps)

    def kill_at_step(self, pod: Pod, step: int) -> None:
        """SIGKILL between its step number `step` and the next; another pod takes its place."""

        def died() -> None:
            if pod.process.steps >= step and not self.stopped:
                self._cluster.log(f"{pod.name} is dead at step {step}")
                self._cluster.bucket.injected["kill at an await"] += 1
                self._replace(pod)

        pod.process.on_death.append(died)
        pod.process.kill_at_step(step)

    def _pause(self, pod: Pod) -> None:
        if not pod.process.paused:
            seconds = math.exp(self._rng.random() * math.log(self._cluster.profile.pause_s_max * 10)) / 10
            self._cluster.pause(pod, seconds, suspend=self._rng.random() < 0.4)

    def _drain(self, pod: Pod) -> None:
        """SIGTERM: the pod finishes what it has, and goes."""
        if pod.retiring or pod.process.paused:
            return
        pod.retiring = True
        self._cluster.bucket.injected["drain"] += 1
        self._cluster.log(f"drain {pod.name}")

        async def drain() -> None:
            await pod.store.drain()
            self._cluster.loop.in_world(0.0, self._kill, pod)

        pod.process.start(drain(), name="drain")

    def _burst(self, _pod: Pod) -> None:
        bucket = self._cluster.bucket
        bucket.burst_until = self._cluster.loop.time() + self._rng.choice((0.2, 2.0, 20.0))
        bucket.injected["burst"] += 1

    def _cut(self, pod: Pod) -> None:
        until = self._cluster.loop.time() + self._rng.choice((0.5, 5.0, 100.0))
        if self._rng.random() < 0.5:
            pod.port.cut_until = until
        else:
            pod.port.deaf_until = until

    def _land(self, _pod: Pod) -> None:
        if self._cluster.bucket.land_one():
            self._cluster.bucket.injected["ghost landed now"] += 1

    def _clock(self, pod: Pod) -> None:
        clock = pod.clock
        self._cluster.bucket.injected["clock"] += 1
        draw = self._rng.random()
        if draw < 0.5:
            clock.jump(self._rng.choice((-1, 1)) * self._rng.choice((1.0, 60.0, 3600.0, 86400.0 * 30)))
        elif draw < 0.75:
            clock.stop()
        else:
            clock.go_on()

    def _flip(self, _pod: Pod) -> None:
        """A bit of anything turns over where it lies. `Cluster.mend` turns it back, as somebody does who has a good copy."""
        bucket = self._cluster.bucket
        key = self._rng.choice(bucket.all_keys() or [""])
        if "/log/" in key or "/big/" in key:
            before = bucket.peek(key)
            bucket.damage(key, "flipped")
            assert before is not None
            self._cluster.damaged.append((key, before, bucket.peek(key)))

    def _damage(self, _pod: Pod) -> None:
        bucket = self._cluster.bucket
        derived = [key for key in bucket.all_keys() if "/snap/" in key or "/sum/" in key]
        if derived:
            bucket.damage(self._rng.choice(derived), self._rng.choice(("missing", "torn", "flipped")))


async def wait_for(loop: VirtualLoop, done: Callable[[], bool], limit_s: float, step_s: float = 0.3) -> bool:
    """Wait in the world until `done()` or so much time has gone by."""
    end = loop.time() + limit_s
    while not done():
        if loop.time() >= end:
            return False
        await sleep(loop, step_s)
        step_s = min(step_s * 1.3, 60.0)
    return True


Job = Callable[[], Coroutine[Any, Any, None]]

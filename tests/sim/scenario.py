"""One seed: a day of pods, clients and faults, then healing, then the reckoning."""

from __future__ import annotations

import gc
import random
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import structlog

from mailpod.errors import Corrupt, MailError
from mailpod.store.account import Account
from mailpod.store.facade import AccountView
from tests.sim.binding import Maintenance, make_store, simulated_limits
from tests.sim.cluster import Cluster, Nemesis, Pod, Profile, wait_for
from tests.sim.faulty import Bucket, FaultRates
from tests.sim.invariants import Reckoning
from tests.sim.ledger import Ledger, ident_of
from tests.sim.loop import VirtualLoop, sleep
from tests.sim.pictures import Picture, picture
from tests.sim.workload import Client

DAY_S_MAX = 4 * 3600.0  # virtual; a day that is not over by then is cut short
SETTLE_S_MAX = 2 * 3600.0  # virtual; afterwards something hangs
PICTURES_MAX = 60
BUG_EVENTS = {"store.background.failed", "store.evaluation.failed", "store.callback.failed"}


class Result(NamedTuple):
    """What one seed came to."""

    seed: int
    operations: int
    requests: int
    virtual_s: float
    faults: Counter[str]
    outcomes: Counter[str]
    failures: list[str]
    digest: int  # of everything that happened: equal for equal runs


class Seen(NamedTuple):
    """What a pod's view was."""

    pod: str
    account: str
    incarnation: int
    picture: Picture
    time: float  # the view's landing time


class SeenPast(NamedTuple):
    """What `at(moment)` gave."""

    account: str
    moment: float
    heads: tuple[int, int]  # the log's head when it was asked and when it was answered
    picture: Picture | None  # None: refused as no longer kept


class Run:
    """Everything that belongs to one seed."""

    def __init__(self, seed: int, profile: Profile | None = None, trace: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.profile = profile or Profile.draw(self.rng)
        self.loop = VirtualLoop(random.Random(self.rng.getrandbits(64)))
        self.bucket = Bucket(self.loop, random.Random(self.rng.getrandbits(64)), clock_offset_s=self.rng.choice((0.0, -400.0, 400.0)))
        self.bucket.clock_skew_s = self.rng.choice((0.0, 0.0, 2.0))
        self.ledger = Ledger(seed, self.rng)
        self.addresses = ["alice@example.com", "bob@example.com", "carol@example.org"][: self.profile.accounts]
        self.prefix = "mail"
        self.root = f"{self.prefix}/v1/"
        self.outcomes: Counter[str] = Counter()
        self.seen: list[Seen] = []
        self.seen_past: list[SeenPast] = []
        self.corrupted: list[tuple[str, str]] = []
        self.reckoning = Reckoning(self)
        self.maintenance = Maintenance(self)
        self.cluster = Cluster(self.loop, self.bucket, random.Random(self.rng.getrandbits(64)), self.profile)
        self.cluster.make_store = lambda pod: make_store(self, pod)
        self.cluster.on_death = self.maintenance.died
        self.cluster.log = self.log
        self.nemesis = Nemesis(self.cluster)
        self.kill_first_pod_at = 0  # its step; 0: it lives
        self.script: Callable[[Run], Coroutine[Any, Any, None]] | None = None  # in place of clients and faults
        self.digest = 0
        self._trace = trace
        self._turns = self.profile.operations
        self._clients: list[tuple[Pod, object]] = []
        self.bucket.trace = self.log

    # What clients and checks call.

    def log(self, line: str) -> None:
        """One thing happened."""
        self.digest = zlib.crc32(f"{self.loop.time():.6f} {line}\n".encode(), self.digest)
        if self._trace is not None:
            self._trace(f"{self.loop.time():12.3f} {line}")

    @property
    def traced(self) -> bool:
        """Whether somebody reads the trace."""
        return self._trace is not None

    def note_traceback(self) -> None:
        """In a traced run, show where the exception came from."""
        if self._trace is not None:
            self._trace(traceback.format_exc())

    def take_turn(self, pod: Pod) -> bool:
        """Whether the client may do one more operation."""
        if self._turns <= 0 or pod.retiring:
            return False
        self._turns -= 1
        self.nemesis.operation_begins()
        return True

    def message_size(self, rng: random.Random) -> int:
        """Mostly small, some above the size from which bodies are stored apart."""
        return rng.choice((150, 150, 300, 300, 700, 1500, 5000))

    def incarnation_in_bucket(self, address: str) -> int:
        """The account's incarnation as of the entries that have landed; 0 when it is closed or was never made."""
        return self.reckoning.incarnation(address)

    def corrupt(self, address: str, what: str) -> None:
        """The store says that an account is corrupt: right only where bits were flipped."""
        self.corrupted.append((address, what))
        if not self.profile.flips:
            self.ledger.fail(f"14: nothing was damaged, yet {address} is said to be corrupt: {what}")

    def observe(self, pod: Pod, account: Account) -> None:
        """Remember what a pod's view of an account is."""
        if len(self.seen) < PICTURES_MAX:
            view = account.view
            self.seen.append(Seen(pod.name, account.address, account.incarnation, picture(view), view.time))

    def any_moment(self, address: str, rng: random.Random) -> float:
        """A moment in an account's life, by the bucket's clock."""
        landed = self.reckoning.archive.log(self.reckoning.name(address)).landed
        now = self.bucket.now()
        return now - rng.random() * (now - landed.get(1, now) + 2.0)

    def head_in_bucket(self, address: str) -> int:
        """The account's highest entry that has landed."""
        return self.reckoning.archive.log(self.reckoning.name(address)).head()

    def observe_past(self, address: str, moment: float, head: int, view: AccountView | None) -> None:
        """Remember what a view of the past was, asked for when the log's head was `head`."""
        self.seen_past.append(SeenPast(address, moment, (head, self.head_in_bucket(address)), picture(view) if view is not None else None))

    def check_body(self, where: tuple[str, int, int, int], raw: bytes) -> None:
        """A client read these bytes: they must be a message that was sent to this account, unchanged."""
        address, incarnation, _folder, _uid = where
        sent = [one for one in self.ledger.sent.get(ident_of(raw), ()) if one.account == address]
        if not any(one.raw == raw for one in sent):
            self.ledger.fail(f"14: {where} reads as something that nobody sent ({raw[:60]!r}…)")
        elif all(one.incarnation not in (None, incarnation) for one in sent):
            self.ledger.fail(f"16: {where} is mail of incarnation {sent[0].incarnation}")

    # The day.

    async def day(self) -> None:
        """Everything, from the first pod to the reckoning."""
        if self.script is not None:
            await self.script(self)
            self.heal()
            await self.settle()
            return
        self.cluster.on_start = self._connect
        for _ in range(self.profile.pods):
            self.cluster.start_pod()
        if self.kill_first_pod_at:
            self.nemesis.kill_at_step(self.cluster.pods[0], self.kill_first_pod_at)
        self.bucket.rates = self.profile.rates
        self.bucket.latency_s = self.profile.latency_s
        self.bucket.flip_rate = 0.02 if self.profile.flips else 0.0
        await wait_for(self.loop, lambda: self._turns <= 0, DAY_S_MAX)
        await wait_for(self.loop, self._clients_done, self.rng.choice((0.0, 1.0, 60.0)))
        self.nemesis.stopped = True
        self.heal()
        await self.settle()

    def _connect(self, pod: Pod) -> None:
        """A pod is up: clients come."""
        self.maintenance.start(pod)
        for _ in range(self.profile.clients):
            client = Client(self, pod, random.Random(self.rng.getrandbits(64)))
            self._clients.append((pod, pod.process.start(client.live(), name="client")))

    def _clients_done(self) -> bool:
        return all(task.done() for pod, task in self._clients if pod.usable())  # type: ignore[attr-defined]

    def heal(self) -> None:
        """No new faults from now on. What is under way stays so, and paused pods stay paused, for the moment."""
        self.maintenance.background = False
        self.log("heal")
        bucket = self.bucket
        bucket.rates = FaultRates()
        bucket.flip_rate = 0.0
        bucket.burst_until = -1.0
        self.cluster.mend()
        bucket.latency_s = 0.01
        for pod in self.cluster.pods:
            pod.port.cut_until = pod.port.deaf_until = -1.0
            pod.retiring = True
        self.cluster.on_start = lambda pod: self.maintenance.start(pod)

    async def settle(self) -> None:
        """Let everything come to rest, in an order of the seed's choosing, then check it all with a pod that has seen nothing before."""
        rng = self.rng
        steps = [self._land_all, self._resume_all, self._kill_some]
        rng.shuffle(steps)
        for step in steps:
            step()
            await sleep(self.loop, rng.choice((0.0, 1.0, 60.0)))
        self._resume_all()
        if not await wait_for(self.loop, self._clients_done, SETTLE_S_MAX):
            self.ledger.fail("hang: clients on healthy pods are not done two hours after healing")
        last = self.cluster.start_pod()
        await self.maintenance.work_off(last, SETTLE_S_MAX)
        self.bucket.land_all()
        await self.maintenance.work_off(last, SETTLE_S_MAX)
        for pod in self.cluster.living():
            if pod is not last:
                self.cluster.kill(pod)  # nobody writes while we count
        self.bucket.land_all()
        self.log("reckoning")
        await self.reckoning.check(last)

    def _land_all(self) -> None:
        self.bucket.land_all()

    def _resume_all(self) -> None:
        for pod in self.cluster.living():
            self.cluster.resume(pod)

    def _kill_some(self) -> None:
        for pod in self.cluster.living():
            if self.rng.random() < 0.5:
                self.cluster.kill(pod)


@contextmanager
def captured_logs(run: Run) -> Iterator[None]:
    """The store's log goes into the trace; what it logs as a failure of its own is one of the run."""

    def take(_logger: object, level: str, event: MutableMapping[str, Any]) -> NoReturn:
        name = event.get("event", "")
        if run.traced:
            run.log(f"log {level} {name} " + " ".join(f"{key}={value}" for key, value in sorted(event.items()) if key != "event"))
        error = event.get("exc_info")
        if name in BUG_EVENTS and not (run.profile.flips and isinstance(error, Corrupt)):
            run.ledger.fail(f"the store logged {name}: {error!r}")
            if isinstance(error, BaseException) and run.traced:
                run.log("".join(traceback.format_exception(error)))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[take], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)


def run_seed(seed: int, profile: Profile | None = None, trace: Callable[[str], None] | None = None) -> Result:
    """Play one seed, whole."""
    run = Run(seed, profile, trace)
    return play(run)


def play(run: Run) -> Result:
    """Play a run that was made."""
    # Weak references die when the collector finds cycles: never in the middle of a run, that would differ from run to run.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with simulated_limits(), captured_logs(run):
            run.loop.run(run.day())
    except Exception as error:
        run.ledger.fail(f"the run ended with {error!r}")
        run.note_traceback()
    finally:
        if collecting:
            gc.enable()
    for process in run.loop.processes:
        for unhandled in process.unhandled:
            run.ledger.fail(f"nobody caught in {process.name}: {unhandled}")
        for name, cause in process.failed_tasks():
            if not isinstance(cause, MailError):
                run.ledger.fail(f"task {name} of {process.name} ended with {cause!r}")
    virtual_s = run.loop.time()
    run.loop.close()
    return Result(
        run.seed,
        run.ledger.operations,
        run.bucket.requests.total(),
        virtual_s,
        run.bucket.injected,
        run.outcomes,
        run.ledger.failures,
        run.digest,
    )

"""The only place of the simulation that knows how a store is made and maintained, beside the façade."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mailpod.errors import Corrupt, MailError
from mailpod.limits import store as limits
from mailpod.message.summary import Summary
from mailpod.store import MailStore, StoreOptions
from mailpod.store.erasing import Erase, Purge
from mailpod.store.forgetting import Forgetting
from mailpod.store.mailstore import AccountLog
from mailpod.store.restore import restore
from tests.sim.loop import sleep

if TYPE_CHECKING:
    from tests.sim.cluster import Pod
    from tests.sim.scenario import Run

# Smaller than in production, so that a short day reaches what takes a busy server weeks.
SIMULATED_LIMITS: dict[str, object] = {
    "BIG_BODY_BYTES_MIN": 4096,
    "BIG_PIECE_BYTES": 1024,
    "PREPARE_OFFLOAD_BYTES_MIN": 1024,
    "ENTRY_HEAD_READ_BYTES": 512,
    "SNAPSHOT_ENTRIES_MIN": 6,
    "SNAPSHOT_ENTRIES_MAX": 12,
    "SNAPSHOT_CLEAN_EVERY": 2,
    "CHUNK_ROWS": 8,
    "CHUNK_ROWS_FIRST": 2,
    "BODY_CACHE_BYTES": 4000,
    "SUMMARY_CACHE_BYTES": 4000,
    "VANISHED_RECORDS_MAX": 6,
    "RELOCATE_LIVING_BYTES_MAX": 2048,
    "TRANSIT_LOGS": 4,
    "TRANSIT_RECLAIM_ENTRIES": 3,
    "SEGMENT_ROWS_MIN": 8,
    "SEGMENT_GROUP_ROWS": 4,
    "QUARANTINE_RETRY_S": 5.0,
    "READ_JOIN_BYTES": 2048,
    "RECLAIM_EVERY_S": 60.0,
}


@contextmanager
def simulated_limits() -> Iterator[None]:
    """Within it the store's limits are the simulation's."""
    before = {name: getattr(limits, name) for name in SIMULATED_LIMITS}
    for name, value in SIMULATED_LIMITS.items():
        setattr(limits, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(limits, name, value)


def summarize(raw: bytes) -> Summary:
    """A summary that costs nothing; what real ones hold is the message package's affair."""
    return Summary(
        envelope=raw[:40],
        bodystructure=b"()",
        body=b"()",
        parts=(),
        header_size=0,
        preview="",
        subject=raw[40:60].decode("ascii", "replace"),
        base_subject="",
        from_="",
        to="",
        cc="",
        sent_at=0,
        message_id="",
        references=(),
    )


def make_store(run: Run, pod: Pod) -> MailStore:
    """The store of one pod."""
    options = StoreOptions(prefix=run.prefix, retention_s=run.profile.retention_s, pod=pod.name, memory_cache_bytes=4000)

    def tell(log: str, seq: int) -> None:
        """To the other pods, some of the time."""
        for other in run.cluster.pods:
            if other is not pod and other.process.alive and run.rng.random() < 0.7:
                run.loop.in_world(run.bucket.flight_s(), hear, other, log, seq)

    def hear(other: Pod, log: str, seq: int) -> None:
        async def listen() -> None:
            other.store.heard(log, seq)

        if other.process.alive:
            other.process.start(listen())

    return MailStore(pod.port, pod.clock, pod.entropy, pod.offload, options, tell, summarize)


class Maintenance:
    """Snapshots, forgetting, erasing, transit: as a pod does them by itself, but when the run says so."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.background = run.profile.background

    def start(self, pod: Pod) -> None:
        """A pod is up: it looks whether somebody left transit logs behind."""
        pod.process.start(self._begin(pod), name="begin")

    async def _begin(self, pod: Pod) -> None:
        if self.background:
            pod.store.start()
        await self._scan(pod)

    def died(self, pod: Pod) -> None:
        """Kubernetes tells the other pods, sometimes."""
        for other in self._run.cluster.living():
            if self._run.rng.random() < 0.3:
                other.store.transit.pod_gone(pod.name)

    async def _scan(self, pod: Pod) -> None:
        try:
            await pod.store.transit.scan()
        except MailError as error:
            self._run.log(f"{pod.name} scan: {error.reason.name}")

    async def work_off(self, pod: Pod, limit_s: float) -> None:
        """Let the pods finish everything that is queued anywhere."""
        run = self._run
        end = run.loop.time() + limit_s
        while run.reckoning.pending() and run.loop.time() < end:
            for other in run.cluster.living():
                other.process.start(self._scan(other), name="scan")
            await sleep(run.loop, 25.0)
        if run.reckoning.pending():
            run.ledger.fail(
                f"13: not delivered {limit_s:.0f} s after healing: {run.reckoning.pending()[:3]} ({pod.name} is the newest pod)"
            )

    async def scan(self, pod: Pod) -> None:
        """Adopt what nobody works off."""
        await pod.store.transit.scan()

    async def reclaim_transit(self, pod: Pod) -> None:
        """Drop the bodies of what is done."""
        for transit in list(pod.store.transit.logs.values()):
            if transit.held:
                await transit.reclaim()

    async def remote(self, pod: Pod, rng: random.Random) -> None:
        """Send pending mail elsewhere, as an outbound queue would: begin, talk a while, prove the hold, only then the final dot."""
        run = self._run
        for transit in list(pod.store.transit.logs.values()):
            if not transit.held or not transit.log.state.pending:
                continue
            key = next(iter(transit.log.state.pending))
            began = run.loop.time()
            await sleep(run.loop, rng.choice((0.0, 0.5, 5.0)))
            if await transit.prove_hold():
                run.outcomes["remote final dot"] += 1
                if not run.reckoning.archive.held_since(transit.log.name, transit.nonce, began, run.loop.time()):
                    run.ledger.fail(f"hold: {pod.name} sends {transit.log.name} {key} elsewhere, which it has not held since {began:.3f}")

    async def snapshot(self, pod: Pod, address: str) -> None:
        """Write a snapshot now."""
        account = await pod.store.open(address)
        try:
            await account.parts.snapshots.write()
        except Corrupt as error:  # damaged before it was read back: it is passed over, nothing more
            self._run.log(f"snapshot of {address}: {error.detail}")

    async def restore(self, pod: Pod, address: str, rng: random.Random) -> None:
        """Bring back an earlier moment."""
        account = await pod.store.open(address)
        await restore(account, self._run.any_moment(address, rng), rng.choice((None, "Restored")))

    async def reclaim(self, pod: Pod, address: str) -> None:
        """Forget what is past retention."""
        account = await pod.store.open(address)
        await Forgetting(account).run()

    async def erase(self, pod: Pod, address: str, rng: random.Random) -> None:
        """Erase an account, perhaps purge it; whoever opens it next makes it again."""
        account = await pod.store.open(address)
        self._run.ledger.erased.add((address, account.incarnation))
        await account.ask(Erase(account.incarnation))
        if rng.random() < 0.7:
            await self.purge(pod, address)

    async def purge(self, pod: Pod, address: str) -> None:
        """Take away what an erase closed."""
        parts = AccountLog(pod.store.shared, address)
        await parts.snapshots.open()
        await Purge(parts).run()

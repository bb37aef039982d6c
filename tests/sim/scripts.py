"""Days that follow a script: damage that no client and no network can do, only other software or a wrong restore of the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mailpod.errors import Corrupt
from mailpod.store.account import Account
from mailpod.store.account_machine import MACHINE
from mailpod.store.builder import AccountBuilder
from mailpod.store.forgetting import Forgetting
from mailpod.store.operations import Removed
from mailpod.store.snapshot import encode
from mailpod.store.state import AccountState
from mailpod.store.types import NewMessage
from mailpod.store.uidset import pack
from tests.sim.ledger import OK
from tests.sim.loop import sleep

if TYPE_CHECKING:
    from tests.sim.cluster import Pod
    from tests.sim.scenario import Run

ADDRESS = "alice@example.com"


async def within(pod: Pod, coroutine: Any) -> Any:
    """Run as the pod's own code."""
    return await pod.process.start(coroutine)


async def append(run: Run, account: Account, count: int) -> None:
    """Messages into INBOX, one commit each, noted in the ledger."""
    inbox = account.view.folders()[0].id
    for _ in range(count):
        ident, raw = run.ledger.compose(200)
        sent = run.ledger.post(ident, raw, account.address, account.incarnation, "append")
        told = await account.append(inbox, [NewMessage(raw, (), 1_700_000_000)])
        sent.outcome, sent.seq, sent.place = OK, told.modseq, (inbox, told.uidvalidity, told.uids[0])


async def expunge(run: Run, account: Account, uids: list[int]) -> None:
    """Remove messages from INBOX for good."""
    inbox = account.view.folders()[0].id
    run.ledger.removable.update((account.address, account.incarnation, inbox, uid) for uid in uids)
    await account.expunge(inbox, np.array(uids, dtype=np.uint32), deleted_only=False)


def plant(run: Run, state: AccountState, time: float) -> None:
    """Put a snapshot of `state` into the bucket, sound in every checksum."""
    data = b"".join(encode(state.seq, state.commit, time, MACHINE.dump(state)))
    run.bucket.put("nobody", run.root + f"{run.reckoning.name(ADDRESS)}/snap/{2**64 - 1 - state.seq:016x}", data)


async def wrong_snapshot(run: Run) -> None:
    """A snapshot at the head lacks messages that are there (older software had a bug). Forgetting must not believe it."""
    first = run.cluster.start_pod()
    account: Account = await within(first, first.store.open(ADDRESS))
    await within(first, append(run, account, 6))
    await within(first, expunge(run, account, [1]))
    await sleep(run.loop, run.profile.retention_s + 10)
    await within(first, append(run, account, 1))
    await within(first, account.refresh())
    state = account.view.state
    wrong = AccountBuilder(state, state.seq)
    wrong.apply(Removed(account.view.folders()[0].id, pack(np.array([2, 3], dtype=np.uint32))))
    lacking = wrong.state
    lacking.seq, lacking.commit = state.seq, state.commit
    plant(run, lacking, run.bucket.now())
    run.cluster.kill(first)
    second = run.cluster.start_pod()

    async def forget() -> None:
        misled = await second.store.open(ADDRESS)
        try:
            await Forgetting(misled).run()
        except Corrupt as error:
            run.log(f"refused to forget: {error.detail}")

    await within(second, forget())
    run.cluster.kill(second)
    # What was wrong is taken away; what was destroyed for it stays destroyed.
    for key in run.bucket.all_keys(run.root):
        if "/snap/" in key:
            run.bucket.delete("nobody", [key])


async def snapshot_beyond_the_head(run: Run) -> None:
    """A snapshot of a state that no entry led to (a bucket that was put back from a copy). Whoever begins there commits beyond a gap."""
    first = run.cluster.start_pod()
    account: Account = await within(first, first.store.open(ADDRESS))
    await within(first, append(run, account, 3))
    state = account.view.state
    for _ in range(2):
        builder = AccountBuilder(state, state.seq + 1)
        state = builder.finish(bytes([state.seq]) * 16, 0)
    plant(run, state, run.bucket.now())
    second = run.cluster.start_pod()
    misled: Account = await within(second, second.store.open(ADDRESS))
    await within(second, append(run, misled, 1))
    await within(first, append(run, account, 1))

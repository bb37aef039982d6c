"""Each safeguard of the log, how to switch it off, and the day on which that does harm.

Production code has no switches: a safeguard is one small method, and switching it off means replacing that method for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import zstandard

from mailpod.errors import Corrupt
from mailpod.limits import store as limits
from mailpod.store import bodies, builder, erasing, log, restore
from mailpod.store.builder import AccountBuilder
from mailpod.store.committer import Committer
from mailpod.store.forgetting import Forgetting, History, Reclaim, bigs_of, bodies_of
from mailpod.store.mailstore import MailStore
from mailpod.store.operations import Erased, Restored
from mailpod.store.requests import Append, Deliver, Request
from mailpod.store.snapshot import Snapshots
from mailpod.store.transit import TransitLog
from tests.sim import scenario
from tests.sim.cluster import Profile
from tests.sim.faulty import FaultRates
from tests.sim.scenario import Result, Run, play, run_seed
from tests.sim.scripts import snapshot_beyond_the_head, wrong_snapshot
from tests.sim.truth import FRAME

Play = Callable[[int], Result]
Change = tuple[Any, Any, object]  # owner, method (or key), what takes its place


class Safeguard(NamedTuple):
    """One of them."""

    name: str  # as STORAGE.md says
    off: tuple[Change, ...]
    play: Play  # a seeded run on a day that suits
    harm: tuple[str, ...]  # what the simulation must say, one of: beginnings of failures
    seeds: int = 60  # tried until harm is found
    also_off: tuple[Change, ...] = ()  # not safeguards: what stays so for the control run too


@contextmanager
def replaced(changes: tuple[Change, ...]) -> Iterator[None]:
    """Within it the methods are others."""
    with ExitStack() as stack:
        for owner, name, value in changes:
            if isinstance(owner, dict):
                stack.enter_context(patch.dict(owner, {name: value}))
            else:
                stack.enter_context(patch.object(owner, name, value))
        yield


def on(profile: Profile) -> Play:
    """Seeds of one kind of day."""
    return lambda seed: run_seed(seed, profile)


def scripted(script: Callable[[Run], Any]) -> Play:
    """A day that follows a script, with no other faults."""

    def run_it(seed: int) -> Result:
        run = Run(seed, CALM)
        run.script = script
        return play(run)

    return run_it


async def _delete_entry(self: Forgetting, seq: int) -> None:
    await self._env.objects.delete([self._log.keys.entry(seq)])


async def _decide_nothing(_self: Forgetting, _history: object, _listed: object) -> int:
    return 0


async def _execute_what_looks_dead(self: Forgetting, _listed: object) -> None:
    alive = {key >> 16 for key in bodies_of(self._log.state).tolist()}
    for seq in range(1, self._log.state.seq):
        if seq not in alive:
            await self.forget_entry(seq)


async def _replay_of_what_we_serve(self: Forgetting, cutoff: float) -> History:
    """The second replay's bodies come from the state that was to be checked."""
    honest = await _HONEST_REPLAY(self, cutoff)
    state = self._log.state
    return honest._replace(state=state, kept=bodies_of(state), kept_bigs=frozenset(bigs_of(state)))


_HONEST_REPLAY = Forgetting.replay


async def _finish_then_deliver(self: TransitLog, key: Any, item: Any, raw: bytes) -> bool:
    numbers = sorted(item.remaining)
    if not await self.finish(key, numbers):
        return False
    return all([await self._recipient(key, item, number, raw) for number in numbers])


def _watermark_too_high(self: TransitLog) -> int:
    return max((seq for seq, _ in self.log.state.pending), default=1) - 1


async def _open_whoever_it_is(self: MailStore, address: str, _incarnation: int) -> object:
    return await self.open(address)


async def _unproven(_self: TransitLog) -> bool:
    return True


def _open_unverified(stored: bytes | memoryview, _seq: int, _index: int, *_: object) -> bytes:
    codec, _length, size, _crc = FRAME.unpack_from(stored)
    data = bytes(stored[FRAME.size :])
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size) if codec else data
    except zstandard.ZstdError as error:
        raise Corrupt(str(error)) from None


async def _idle(_self: TransitLog) -> None:
    """Nobody works anything off: mail for elsewhere stays pending."""


def _nothing(*_arguments: object) -> None:
    return None


CALM = Profile(pods=2, accounts=1, clients=1, operations=0, strike_every=0.0)
_WRITING = {"append": 10.0, "flags": 2.0, "observe": 1.0}
_FORGETTING = {"append": 10.0, "delete": 6.0, "expunge": 8.0, "move": 3.0, "reclaim": 8.0, "at": 3.0, "read": 4.0}
_TRANSIT = {"accept": 10.0, "append": 3.0, "scan": 5.0, "read": 1.0}
_LOSSY = FaultRates(lost_reply=0.08, ghost=0.08, false_exists=0.05, repeated=0.02, ghost_s_max=20.0)

RACING = Profile(pods=4, accounts=1, operations=60, think_s=0.02, strike_every=0.0, weights=_WRITING)
GHOSTLY = RACING._replace(pods=2, rates=_LOSSY._replace(ghost=0.25, ghost_s_max=2.0))
AGEING = Profile(pods=3, accounts=1, operations=70, think_s=2.0, strike_every=20.0, retention_s=12.0, weights=_FORGETTING)
UPLOADING = Profile(
    pods=4,
    accounts=1,
    operations=70,
    think_s=0.1,
    latency_s=0.2,
    strike_every=4.0,
    kills=False,
    retention_s=2.0,
    weights={"append_big": 10.0, "reclaim": 8.0, "delete": 2.0, "expunge": 2.0},
)
DELIVERING = Profile(pods=3, accounts=2, operations=60, think_s=0.3, strike_every=3.0, rates=_LOSSY, weights=_TRANSIT)
OWNERS = Profile(
    pods=3,
    accounts=1,
    operations=60,
    think_s=0.3,
    strike_every=4.0,
    rates=_LOSSY,
    weights={**_TRANSIT, "erase": 5.0, "purge": 1.0, "scan": 2.0},
)
ERASING = OWNERS._replace(
    weights={"append": 8.0, "erase": 4.0, "purge": 3.0, "create_folder": 3.0, "reclaim": 4.0, "delete": 4.0, "expunge": 4.0}
)
HOLDING = Profile(pods=4, accounts=1, operations=60, think_s=1.0, strike_every=3.0, weights={"accept": 6.0, "remote": 14.0, "scan": 10.0})

ROTTING = Profile(
    pods=3, accounts=1, operations=60, think_s=0.3, strike_every=2.0, flips=True, weights={"append": 6.0, "read": 10.0, "read_many": 4.0}
)

SAFEGUARDS = (
    Safeguard("commit-id comparison", ((Committer, "is_mine", lambda *_: True),), on(RACING), ("2: ", "3: ")),
    Safeguard("emptying instead of deleting", ((Forgetting, "forget_entry", _delete_entry),), on(AGEING), ("2: ", "8: ", "9: ")),
    Safeguard("another's found before re-evaluating", ((Committer, "put_again", lambda *_: False),), on(GHOSTLY), ("3: ",)),
    Safeguard("reclaim as a commit", ((Forgetting, "decide", _decide_nothing),), on(AGEING), ("9: ", "10: ")),
    Safeguard("the reclaim's floor", ((Forgetting, "forgotten", lambda *_: True),), on(AGEING), ("10: ",)),
    Safeguard("the reclaim's list", ((Forgetting, "execute", _execute_what_looks_dead),), on(AGEING), ("9: ", "10: ")),
    Safeguard(
        "the reclaim's second replay",
        ((Forgetting, "reproduced", lambda *_: True), (Forgetting, "replay", _replay_of_what_we_serve)),
        scripted(wrong_snapshot),
        ("9: ",),
        seeds=3,
    ),
    Safeguard("what landed since the reclaim's replay", ((Reclaim, "check_unmoved", _nothing),), on(UPLOADING), ("9: ",)),
    Safeguard(
        "no restore from before the floor",
        ((restore.Restore, "check_floor", _nothing), (restore, "check_kept", _nothing), (builder._APPLY, Restored, _nothing)),
        on(AGEING._replace(weights={**_FORGETTING, "restore": 8.0})),
        ("9: ",),
    ),
    Safeguard("the big watermark", ((Append, "check_big_watermark", _nothing),), on(UPLOADING), ("9: ",)),
    Safeguard(
        "landing time",
        ((log, "landing_time", lambda _header, stored: stored.last_modified),),
        on(ERASING._replace(think_s=2.0, retention_s=3.0)),
        ("15: ",),
    ),
    Safeguard("done after delivery", ((TransitLog, "deliver_then_finish", _finish_then_deliver),), on(DELIVERING), ("13: ",)),
    Safeguard("watermark after done", ((TransitLog, "watermark", _watermark_too_high),), on(DELIVERING), ("13: ",)),
    Safeguard(
        "the applied record",
        ((Deliver, "already_applied", lambda *_: False), (AccountBuilder, "applied_before", staticmethod(lambda *_: False))),
        on(DELIVERING),
        ("13: ",),
    ),
    Safeguard(
        "the incarnation",
        ((Request, "check_incarnation", _nothing), (MailStore, "open_for_transit", _open_whoever_it_is)),
        on(OWNERS),
        ("16: ",),
        seeds=120,
    ),
    Safeguard(
        "the self-contained erase",
        ((erasing, "closed_state", lambda state: Erased(state.incarnation, 1, 1, 1, "", ())),),
        on(ERASING),
        ("5: ", "6: ", "16: "),
    ),
    Safeguard(
        "the snapshot with its entry",
        ((Snapshots, "entry_vouches", lambda *_: True),),
        scripted(snapshot_beyond_the_head),
        ("1: ", "2: "),
        3,
    ),
    Safeguard("checksums of bodies", ((bodies, "open_frame", _open_unverified),), on(ROTTING), ("14: ",)),
    Safeguard(
        "the hold, against remote sends",
        ((TransitLog, "prove_hold", _unproven),),
        on(HOLDING),
        ("hold: ",),
        seeds=120,
        also_off=((TransitLog, "_work", _idle), (limits, "HOLD_TTL_S", 3.0), (scenario, "SETTLE_S_MAX", 60.0)),
    ),
)


def harm_of(safeguard: Safeguard, result: Result) -> list[str]:
    """Those failures that name the harm."""
    return [failure for failure in result.failures if failure.startswith(safeguard.harm)]


def first_harm(safeguard: Safeguard) -> Result | None:
    """The first seed that shows the harm with the safeguard switched off; None when none does."""
    with replaced(safeguard.off), replaced(safeguard.also_off):
        for seed in range(safeguard.seeds):
            result = safeguard.play(seed)
            if harm_of(safeguard, result):
                return result
    return None


def control(safeguard: Safeguard, seed: int) -> Result:
    """The same seed with the safeguard in place."""
    with replaced(safeguard.also_off):
        return safeguard.play(seed)


__all__ = ["SAFEGUARDS", "Safeguard", "control", "first_harm", "harm_of"]

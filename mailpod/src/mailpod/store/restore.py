"""The past of an account: its state at a moment, and bringing it back as new messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mailpod.errors import ACCOUNT_CLOSED, Refused
from mailpod.limits import store as limits
from mailpod.store import columns
from mailpod.store import operations as ops
from mailpod.store.folder_requests import make_folders
from mailpod.store.history import Replay
from mailpod.store.names import INBOX, canonical, parents
from mailpod.store.reasons import BEYOND_RETENTION, LIMIT
from mailpod.store.requests import Batch, Request
from mailpod.store.snapshot import Snapshots
from mailpod.store.state import AccountState
from mailpod.store.types import SEPARATOR
from mailpod.store.views import AccountView

if TYPE_CHECKING:
    from mailpod.store.account import Account

ROWS_AT_ONCE = 50_000  # messages in one commit: some 2 MB of operations


async def state_at(snapshots: Snapshots[AccountState], moment: float) -> tuple[AccountState, float]:
    """The state in force at `moment`, and when it began: the newest snapshot before, and the entries since."""
    log = snapshots.log
    base = await snapshots.before(moment)
    line = Replay(log, base.state if base is not None else AccountState(), base.time if base is not None else 0.0)
    async for entry in line.entries():
        if max(line.time, entry.landing) > moment:
            break
        line.step(entry)
    return line.state, line.time


async def view_at(account: Account, moment: float) -> AccountView:
    """The account as a reader saw it at `moment`. Raises `Refused` (beyond-retention, account-closed)."""
    state, time = await state_at(account.parts.snapshots, moment)
    await account.log.refresh()
    check_kept(state, account.log.state, account.incarnation)
    return AccountView(state, time, account.reader)


def check_kept(past: AccountState, present: AccountState, incarnation: int) -> None:
    """Bodies of states before the floor may be gone; an erased account's past is nobody's. Raises `Refused`."""
    if present.closed or present.incarnation != incarnation:
        raise Refused(ACCOUNT_CLOSED, f"incarnation {incarnation} has ended")
    if past.seq < max(present.floor, 1) or past.closed or past.incarnation != incarnation:
        raise Refused(BEYOND_RETENTION, f"state {past.seq}, floor {present.floor}")


class Restored(NamedTuple):
    """What a restore brings back, by folder name."""

    seq: int  # of the state that was restored
    messages: dict[str, int]


class Restore(Request):
    """Some messages of an earlier state come into a folder, as new UIDs, flags kept."""

    def __init__(
        self, incarnation: int, past: AccountState, name: str, special_use: str, fixed: columns.Fixed, flags: columns.Flags
    ) -> None:
        super().__init__(incarnation)
        self.past = past
        self.name = name
        self.special_use = special_use
        self.fixed = fixed
        self.flags = flags
        self.weight = 512 + len(fixed) * (columns.FIXED.itemsize + 8)

    def check_floor(self, state: AccountState) -> None:
        """A reclaim that landed meanwhile may have listed these bodies. Raises `Refused`."""
        check_kept(self.past, state, self.incarnation)

    def evaluate(self, batch: Batch) -> int:
        """How many messages."""
        state, builder = batch.state, batch.builder
        self.check_incarnation(state)
        self.check_floor(state)
        folder = state.folder_named(self.name)
        if folder is None:
            missing = [name for name in parents(self.name) if state.folder_named(name) is None]
            taken = {one.special_use for one in state.folders.values()}
            use = "" if self.special_use in taken else self.special_use
            make_folders(batch, [*((name, "") for name in missing), (self.name, use)])
            folder = state.folder_named(self.name)
            assert folder is not None, "it has just been made"
        if not len(self.fixed):
            return 0
        if folder.uidnext + len(self.fixed) - 1 > limits.UID_MAX:
            raise Refused(LIMIT, "UIDs are used up")
        own = self.fixed["off"] == columns.BIG
        bigs = tuple(self.past.bigs[email] for email in sorted(set(self.fixed["email"][own].tolist())))
        builder.do(ops.Restored(self.past.seq))
        builder.do(ops.Inserted(folder.id, folder.uidnext, batch.saved, self.fixed.tobytes(), self.flags.astype("<u8").tobytes(), bigs))
        return len(self.fixed)


async def restore(account: Account, moment: float, into: str | None = None, *, dry_run: bool = False) -> Restored:
    """Bring back what was there at `moment`.

    Without `into`: each folder gets back the messages that it had then and has not now; folders that are gone are made again.
    With `into`: everything as it was then, INBOX as folder `into`, the others below it. With `dry_run`: only counts.
    Raises `Refused` (beyond-retention, limit, bad-folder-name).
    """
    view = await view_at(account, moment)
    past, present = view.state, account.log.state
    target = canonical(into) if into is not None else None
    counts: dict[str, int] = {}
    for folder in sorted(past.folders.values(), key=lambda one: (one.name != INBOX, one.name)):
        name = folder.name
        if target is not None:
            name = target if folder.name == INBOX else f"{target}{SEPARATOR}{folder.name}"
        fixed, flags = folder.locations(), columns.flags_column(folder.chunks)
        if target is None:
            now = present.folder_named(name)
            if now is not None:
                lost = ~np.isin(fixed["email"], columns.column(now.chunks, "email"))
                fixed, flags = fixed[lost], flags[lost]
                if not len(fixed):
                    continue
        counts[name] = len(fixed)
        if dry_run:
            continue
        use = folder.special_use if target is None else ""
        for start in range(0, max(len(fixed), 1), ROWS_AT_ONCE):
            end = start + ROWS_AT_ONCE
            await account.ask(Restore(account.incarnation, past, canonical(name), use, fixed[start:end], flags[start:end]))
    return Restored(past.seq, counts)

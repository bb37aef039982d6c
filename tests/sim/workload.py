"""What the clients do: everything that a mail session can ask of the store, at random, each noting in the ledger what it was told."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import numpy as np

from mailpod.errors import Corrupt, Refused, StoreUnavailable
from mailpod.store.account import Account
from mailpod.store.facade import FolderView
from mailpod.store.types import NewMessage, TransitMessage, TransitRecipient, Uids
from tests.sim.cluster import Pod
from tests.sim.ledger import FAILED, OK, Sent, Told
from tests.sim.loop import sleep
from tests.sim.pictures import Mirror

if TYPE_CHECKING:
    from tests.sim.scenario import Run

FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "$Forwarded", "$Junk", "todo")
NAMES = ("Work", "Work/2026", "Lists", "Lists/dev", "Été", "Old")

WEIGHTS: dict[str, float] = {
    "append": 22,
    "accept": 10,
    "flags": 14,
    "copy": 5,
    "move": 7,
    "delete": 8,
    "expunge": 8,
    "create_folder": 3,
    "delete_folder": 2,
    "rename_folder": 2,
    "subscribe": 1,
    "read": 12,
    "read_many": 4,
    "sync": 8,
    "at": 3,
    "restore": 1,
    "snapshot": 3,
    "reclaim": 4,
    "purge": 0.5,
    "erase": 0.6,
    "scan": 2,
    "reclaim_transit": 1,
    "remote": 2,
    "observe": 6,
}


class Client:
    """One mail client, connected to one pod for as long as that lives."""

    def __init__(self, run: Run, pod: Pod, rng: random.Random) -> None:
        self._run = run
        self._pod = pod
        self._rng = rng
        self._mirrors: dict[tuple[str, int, int], Mirror] = {}
        weights = run.profile.weights or WEIGHTS
        self._names = list(weights)
        self._weights = list(weights.values())

    async def live(self) -> None:
        """Until the run's operations are used up."""
        run = self._run
        while run.take_turn(self._pod):
            await sleep(run.loop, self._rng.expovariate(1 / run.profile.think_s))
            name = self._rng.choices(self._names, self._weights)[0]
            await self.do(name)

    async def do(self, name: str, address: str = "") -> None:
        """One operation; every error that the façade names is an honest answer, any other is a bug."""
        run = self._run
        address = address or self._rng.choice(run.addresses)
        action: Callable[[str], Awaitable[None]] = getattr(self, f"_{name}")
        run.log(f"{self._pod.name} {name} {address}")
        said = "done"
        try:
            await action(address)
        except (Refused, StoreUnavailable) as error:
            said = error.reason.name
        except Corrupt as error:
            said = f"corrupt: {error}"
            run.corrupt(address, f"{name}: {error}")
        except Exception as error:
            run.ledger.fail(f"{name} on {address} raised {error!r}")
            run.note_traceback()
        run.ledger.operations += 1
        run.outcomes[f"{name} {said if ':' not in said else 'corrupt'}"] += 1
        run.log(f"{self._pod.name} {name} {address}: {said}")

    # Choosing.

    async def _open(self, address: str) -> Account:
        account = await self._pod.store.open(address)
        if self._rng.random() < 0.3:
            await account.refresh()
        return account

    def _folder(self, account: Account) -> FolderView:
        folders = account.view.folders()
        if self._rng.random() < 0.5:
            return folders[0]
        return self._rng.choice(folders)

    def _full_folder(self, account: Account) -> FolderView | None:
        full = [folder for folder in account.view.folders() if folder.count]
        return self._rng.choice(full) if full else None

    def _some(self, folder: FolderView) -> Uids:
        uids = folder.uids()
        draw = self._rng.random()
        if draw < 0.2:
            return uids
        count = min(len(uids), 1 if draw < 0.6 else 3)
        chosen = sorted(self._rng.sample(range(len(uids)), count))
        some = uids[np.array(chosen, dtype=np.int64)]
        if draw > 0.95:  # one that is not there
            some = np.unique(np.append(some, np.uint32(folder.uidnext + 5)))
        return some

    def _told(self, account: Account, incarnation: int, kind: str, folder: int, seq: int, details: object) -> None:
        self._run.ledger.told.append(Told(account.address, incarnation, kind, folder, seq, details))

    # Writing.

    async def _append_big(self, address: str) -> None:
        await self._append(address, big=True)

    async def _append(self, address: str, *, big: bool = False) -> None:
        ledger = self._run.ledger
        account = await self._open(address)
        folder = self._folder(account)
        incarnation = account.incarnation
        count = self._rng.choice((1, 1, 1, 2, 4))
        made = [ledger.compose(5000 if big else self._run.message_size(self._rng)) for _ in range(count)]
        flags = tuple(self._rng.sample(FLAGS[:3] + FLAGS[5:], self._rng.choice((0, 0, 1, 2))))
        sent = [ledger.post(ident, raw, address, incarnation, "append") for ident, raw in made]
        try:
            told = await account.append(folder.id, [NewMessage(raw, flags, 1_700_000_000) for _, raw in made])
        except Refused:
            for one in sent:
                one.outcome = FAILED
            raise
        for one, uid in zip(sent, told.uids, strict=True):
            one.outcome = OK
            one.place = (folder.id, told.uidvalidity, uid)
            one.seq = told.modseq

    async def _accept(self, address: str) -> None:
        run = self._run
        ident, raw = run.ledger.compose(run.message_size(self._rng))
        addresses = sorted({address, *self._rng.sample(run.addresses, min(len(run.addresses), self._rng.choice((1, 2, 2))))})
        recipients = []
        sent: list[tuple[Sent, int]] = []
        for one in addresses:
            for folder in self._rng.choice((("INBOX",), ("INBOX",), ("INBOX", "Work"))):
                prefix = f"Delivered-To: {one} {folder}\r\n".encode()
                recipients.append(TransitRecipient(one, folder, prefix))
                before = run.incarnation_in_bucket(one)
                sent.append((run.ledger.post(ident, prefix + raw, one, None, "transit"), before))
        try:
            await self._pod.store.accept(TransitMessage(raw, "sender@example.org", tuple(recipients)))
        except Refused:
            for record, _ in sent:
                record.outcome = FAILED
            raise
        for record, before in sent:
            record.outcome = OK
            if run.incarnation_in_bucket(record.account) == before:
                record.incarnation = before

    async def _flags(self, address: str) -> None:
        account = await self._open(address)
        folder = self._full_folder(account)
        if folder is None:
            return
        incarnation = account.incarnation
        uids = self._some(folder)
        mode = self._rng.choice(("add", "add", "remove", "replace"))
        flags = self._rng.sample([flag for flag in FLAGS if flag != "\\Deleted"], self._rng.choice((1, 1, 2)))
        since = folder.highestmodseq if self._rng.random() < 0.2 else None
        told = await account.store_flags(folder.id, uids, mode, flags, since)
        if len(told.changed):
            self._told(account, incarnation, "flags", folder.id, told.modseq, (told.changed.tolist(), mode, tuple(flags)))

    async def _copy(self, address: str) -> None:
        await self._transfer(address, move=False)

    async def _move(self, address: str) -> None:
        await self._transfer(address, move=True)

    async def _transfer(self, address: str, *, move: bool) -> None:
        account = await self._open(address)
        folder = self._full_folder(account)
        if folder is None:
            return
        incarnation = account.incarnation
        target = self._rng.choice([other for other in account.view.folders() if other.id != folder.id])
        uids = self._some(folder)
        if move:
            self._removable(address, incarnation, folder.id, uids)
            told = await account.move(folder.id, uids, target.id)
        else:
            told = await account.copy(folder.id, uids, target.id)
        if len(told.uids):
            details = (told.uids.tolist(), told.new_uids.tolist(), target.id)
            self._told(account, incarnation, "move" if move else "copy", folder.id, told.modseq, details)

    def _removable(self, address: str, incarnation: int, folder_id: int, uids: Uids) -> None:
        self._run.ledger.removable.update((address, incarnation, folder_id, uid) for uid in uids.tolist())

    async def _delete(self, address: str) -> None:
        """Set \\Deleted: an expunge of the folder may take these from now on."""
        account = await self._open(address)
        folder = self._full_folder(account)
        if folder is None:
            return
        uids = self._some(folder)
        incarnation = account.incarnation
        self._removable(address, incarnation, folder.id, uids)
        told = await account.store_flags(folder.id, uids, "add", ["\\Deleted"])
        if len(told.changed):
            self._told(account, incarnation, "flags", folder.id, told.modseq, (told.changed.tolist(), "add", ("\\Deleted",)))

    async def _expunge(self, address: str) -> None:
        account = await self._open(address)
        folder = self._full_folder(account)
        if folder is None:
            return
        incarnation = account.incarnation
        draw = self._rng.random()
        if draw < 0.4:
            told = await account.expunge(folder.id)
        else:
            uids = self._some(folder)
            if draw < 0.8:
                self._removable(address, incarnation, folder.id, uids)
            told = await account.expunge(folder.id, uids, deleted_only=draw >= 0.8)
        if len(told.uids):
            self._told(account, incarnation, "expunge", folder.id, told.modseq, told.uids.tolist())

    # Folders.

    async def _create_folder(self, address: str) -> None:
        account = await self._open(address)
        incarnation = account.incarnation
        made = await account.create_folder(self._rng.choice(NAMES))
        self._told(account, incarnation, "create", made.id, account.view.seq, made.name)

    def _own_folder(self, account: Account) -> FolderView | None:
        own = [folder for folder in account.view.folders() if folder.name != "INBOX" and not folder.special_use]
        return self._rng.choice(own) if own else None

    async def _delete_folder(self, address: str) -> None:
        account = await self._open(address)
        folder = self._own_folder(account)
        if folder is None:
            return
        incarnation = account.incarnation
        self._run.ledger.dropped_folders.add((address, incarnation, folder.id))
        await account.delete_folder(folder.id)
        self._told(account, incarnation, "delete", folder.id, account.view.seq, None)

    async def _rename_folder(self, address: str) -> None:
        account = await self._open(address)
        if self._rng.random() < 0.15:
            inbox = account.view.folders()[0]
            self._removable(address, account.incarnation, inbox.id, inbox.uids())
            self._run.ledger.emptied_inboxes.add((address, account.incarnation))
            await account.rename_folder(inbox.id, self._rng.choice(NAMES))
            return
        folder = self._own_folder(account)
        if folder is not None:
            await account.rename_folder(folder.id, self._rng.choice(NAMES))

    async def _subscribe(self, address: str) -> None:
        account = await self._open(address)
        await account.set_subscribed(self._rng.choice(NAMES), self._rng.random() < 0.6)

    # Reading.

    async def _read(self, address: str) -> None:
        account = await self._open(address)
        folder = self._full_folder(account)
        if folder is None:
            return
        incarnation = account.incarnation
        row = self._rng.randrange(folder.count)
        uid = int(folder.uids()[row])
        size = int(folder.sizes()[row])
        where = (address, incarnation, folder.id, uid)
        if self._rng.random() < 0.5:
            self._run.check_body(where, await folder.read(row))
            return
        start = self._rng.randrange(size + 1)
        length = self._rng.randrange(1, size + 2)
        part = await folder.read(row, start, length)
        whole = await folder.read(row)
        self._run.check_body(where, whole)
        if part != whole[start : start + length]:
            self._run.ledger.fail(f"14: range {start}+{length} of {where} is not what the whole message has there")

    async def _read_many(self, address: str) -> None:
        account = await self._open(address)
        folder = self._full_folder(account)
        if folder is None:
            return
        incarnation = account.incarnation
        uids = folder.uids().tolist()
        rows = folder.rows_of(self._some(folder))
        last = -1
        async for row, raw in folder.read_many(rows):
            if row <= last:
                self._run.ledger.fail(f"read_many of {address} {folder.name} answers out of order")
            last = row
            self._run.check_body((address, incarnation, folder.id, uids[row]), raw)

    async def _sync(self, address: str) -> None:
        """A QRESYNC client comes back."""
        account = await self._open(address)
        view = account.view
        folder = self._folder(account)
        key = (address, account.incarnation, folder.id)
        mirror = self._mirrors.get(key)
        if mirror is None:
            self._mirrors[key] = Mirror(folder, view.keywords)
            return
        if mirror.highestmodseq > folder.highestmodseq:
            self._run.ledger.fail(f"7: HIGHESTMODSEQ of {key} went back from {mirror.highestmodseq} to {folder.highestmodseq}")
        wrong = mirror.catch_up(folder, view.keywords)
        if wrong:
            self._run.ledger.fail(f"12: QRESYNC of {key} at seq {view.seq}: {wrong}")

    async def _observe(self, address: str) -> None:
        """Look at the whole account, and remember what was seen."""
        account = await self._open(address)
        self._run.observe(self._pod, account)

    async def _at(self, address: str) -> None:
        account = await self._open(address)
        await account.refresh()
        moment = self._run.any_moment(address, self._rng)
        head = self._run.head_in_bucket(address)
        try:
            view = await account.at(moment)
        except Refused as error:
            if error.reason.name == "beyond-retention":
                self._run.observe_past(address, moment, head, None)
            raise
        self._run.observe_past(address, moment, head, view)

    # Maintenance, at moments of nobody's choosing.

    async def _restore(self, address: str) -> None:
        await self._run.maintenance.restore(self._pod, address, self._rng)

    async def _snapshot(self, address: str) -> None:
        await self._run.maintenance.snapshot(self._pod, address)

    async def _reclaim(self, address: str) -> None:
        await self._run.maintenance.reclaim(self._pod, address)

    async def _purge(self, address: str) -> None:
        await self._run.maintenance.purge(self._pod, address)

    async def _scan(self, _address: str) -> None:
        await self._run.maintenance.scan(self._pod)

    async def _reclaim_transit(self, _address: str) -> None:
        await self._run.maintenance.reclaim_transit(self._pod)

    async def _remote(self, _address: str) -> None:
        await self._run.maintenance.remote(self._pod, self._rng)

    async def _erase(self, address: str) -> None:
        await self._run.maintenance.erase(self._pod, address, self._rng)

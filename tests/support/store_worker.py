"""One process of mail clients over a real store: `python -m tests.support.store_worker`, told by JSON on its command line what to do.

It works at random until its standard input ends. Every operation is entered in a ledger (JSON lines, written before it begins and after
its answer is known), which outlives the process: what was begun and has no answer is "unknown". `store_audit` reads it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import numpy as np

from mailpod.adapters.objects import Credentials, open_bucket
from mailpod.adapters.system import SystemClock, SystemEntropy, ThreadOffload
from mailpod.contract import StorageConfig
from mailpod.errors import Corrupt, Refused, StoreUnavailable
from mailpod.store import MailStore, StoreOptions
from mailpod.store.account import Account
from mailpod.store.forgetting import Forgetting
from mailpod.store.types import NewMessage, TransitMessage, TransitRecipient, Uids
from mailpod.store.views import FolderView

FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "$Forwarded", "todo")
NAMES = ("Work", "Work/2026", "Lists", "Lists/dev", "Été")

WEIGHTS = {
    "append": 24, "accept": 14, "flags": 14, "copy": 6, "move": 8, "expunge": 9, "create_folder": 6, "delete_folder": 3,
    "rename_folder": 6, "read": 10, "reclaim": 2, "snapshot": 3,
}  # fmt: skip


class Task(msgspec.Struct):
    """What a worker is told."""

    storage: StorageConfig
    access_key_id: str
    secret_access_key: str
    pod: str
    seed: int
    ledger: str  # file
    accounts: tuple[str, ...]
    clients: int = 5
    retention_s: float = 4.0
    gone: tuple[str, ...] = ()  # pods that Kubernetes would say are gone


def make_store(task: Task, on_commit: Callable[[str, int], None] = lambda _log, _seq: None) -> tuple[MailStore, ThreadOffload]:
    """A store as a pod has it, and the threads to close after it."""
    clock = SystemClock()
    bucket = open_bucket(task.storage, clock, credentials=Credentials(task.access_key_id, task.secret_access_key))
    offload = ThreadOffload(2)
    options = StoreOptions(prefix=task.storage.prefix, retention_s=task.retention_s, pod=task.pod)
    return MailStore(bucket, clock, SystemEntropy(), offload, options, on_commit), offload


def compose(ident: str, size: int) -> bytes:
    """A message that exists once in the world, and whose bytes follow from its identity and size."""
    head = (
        f"From: Carol <carol@example.org>\r\nTo: team@example.com\r\nSubject: message {ident}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{ident}@store.example.org>\r\n\r\n"
    ).encode()
    noise = hashlib.shake_128(ident.encode()).hexdigest(max(1, size // 2))
    return head + b"".join(noise[at : at + 76].encode() + b"\r\n" for at in range(0, len(noise), 76))


class Worker:
    """The clients of one process."""

    def __init__(self, task: Task, store: MailStore) -> None:
        self._task = task
        self._store = store
        self._rng = random.Random(task.seed)
        self._ledger = os.open(task.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._count = 0

    def _write(self, record: dict[str, Any]) -> None:
        os.write(self._ledger, json.dumps(record).encode() + b"\n")  # in the kernel's hands: a SIGKILL takes nothing back

    async def live(self, stop: asyncio.Event) -> None:
        """One client, until `stop`."""
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        while not stop.is_set():
            name = self._rng.choices(names, weights)[0]
            account = await self._account()
            if account is not None:
                action: Callable[[Account], Awaitable[None]] = getattr(self, f"_{name}")
                await action(account)
            await asyncio.sleep(self._rng.expovariate(200))

    async def _account(self) -> Account | None:
        try:
            account = await self._store.open(self._rng.choice(self._task.accounts))
            if self._rng.random() < 0.3:
                await account.refresh()
        except StoreUnavailable:
            return None
        return account

    async def _enter(self, kind: str, account: Account, asked: dict[str, Any], operation: Awaitable[dict[str, Any]]) -> None:
        """Do it, with a ledger line before and one after."""
        self._count += 1
        name = f"{self._task.pod}-{self._count}"
        self._write({"id": name, "kind": kind, "account": account.address, **asked})
        outcome: dict[str, Any]
        try:
            outcome = {"outcome": "ok", **await operation}
        except Refused as error:
            outcome = {"outcome": "fail", "why": error.reason.name}
        except StoreUnavailable as error:
            outcome = {"outcome": "unknown", "why": error.reason.name}
        except Corrupt as error:
            outcome = {"outcome": "wrong", "why": error.detail}
        except Exception as error:
            outcome = {"outcome": "wrong", "why": repr(error)}
        self._write({"id": name, **outcome})

    # Choosing.

    def _folder(self, account: Account, *, full: bool = False) -> FolderView | None:
        folders = [folder for folder in account.view.folders() if folder.count or not full]
        if not folders:
            return None
        return folders[0] if self._rng.random() < 0.4 else self._rng.choice(folders)

    def _some(self, folder: FolderView) -> Uids:
        uids = folder.uids()
        count = min(len(uids), self._rng.choice((1, 1, 2, 5)))
        return uids[np.array(sorted(self._rng.sample(range(len(uids)), count)), dtype=np.int64)]

    def _message(self, number: int) -> tuple[str, int, bytes]:
        ident = f"{self._task.pod}-{self._count + 1}-{number}"
        size = self._rng.choice((300, 1500, 6000, 40_000))
        return ident, size, compose(ident, size)

    # Operations.

    async def _append(self, account: Account) -> None:
        folder = self._folder(account)
        assert folder is not None
        made = [self._message(number) for number in range(self._rng.choice((1, 1, 1, 3)))]
        flags = tuple(self._rng.sample(FLAGS, self._rng.choice((0, 0, 1))))

        async def operation() -> dict[str, Any]:
            told = await account.append(folder.id, [NewMessage(raw, flags, 1_700_000_000) for _, _, raw in made])
            return {"uids": list(told.uids), "uidvalidity": told.uidvalidity, "seq": told.modseq}

        await self._enter("append", account, {"folder": folder.id, "messages": [(ident, size) for ident, size, _ in made]}, operation())

    async def _accept(self, account: Account) -> None:
        ident, size, raw = self._message(0)
        others = [address for address in self._task.accounts if address != account.address]
        people = [account.address, *self._rng.sample(others, self._rng.randint(1, len(others)))]
        recipients = tuple(TransitRecipient(one, "INBOX", f"Delivered-To: {one}\r\n".encode()) for one in people)

        async def operation() -> dict[str, Any]:
            return {"queue": await self._store.accept(TransitMessage(raw, "carol@example.org", recipients))}

        await self._enter("accept", account, {"messages": [(ident, size)], "recipients": people}, operation())

    async def _flags(self, account: Account) -> None:
        folder = self._folder(account, full=True)
        if folder is None:
            return
        uids = self._some(folder)
        modes: tuple[Literal["add", "remove", "replace"], ...] = ("add", "remove", "replace")
        mode = self._rng.choice(modes)
        flags = self._rng.sample(FLAGS, self._rng.choice((1, 2)))

        async def operation() -> dict[str, Any]:
            told = await account.store_flags(folder.id, uids, mode, flags)
            return {"changed": told.changed.tolist(), "seq": told.modseq}

        await self._enter("flags", account, {"folder": folder.id}, operation())

    async def _copy(self, account: Account, *, move: bool = False) -> None:
        folder = self._folder(account, full=True)
        if folder is None:
            return
        target = self._rng.choice([other for other in account.view.folders() if other.id != folder.id])
        uids = self._some(folder)

        async def operation() -> dict[str, Any]:
            told = await (account.move if move else account.copy)(folder.id, uids, target.id)
            return {"uids": told.uids.tolist(), "new_uids": told.new_uids.tolist(), "seq": told.modseq}

        asked = {"folder": folder.id, "target": target.id, "asked": uids.tolist()}
        await self._enter("move" if move else "copy", account, asked, operation())

    async def _move(self, account: Account) -> None:
        await self._copy(account, move=True)

    async def _expunge(self, account: Account) -> None:
        folder = self._folder(account, full=True)
        if folder is None:
            return
        uids = self._some(folder)

        async def operation() -> dict[str, Any]:
            told = await account.expunge(folder.id, uids, deleted_only=False)
            return {"uids": told.uids.tolist(), "seq": told.modseq}

        await self._enter("expunge", account, {"folder": folder.id, "asked": uids.tolist()}, operation())

    async def _create_folder(self, account: Account) -> None:
        name = self._rng.choice(NAMES)

        async def operation() -> dict[str, Any]:
            folder = await account.create_folder(name)
            return {"folder": folder.id}

        await self._enter("create", account, {"name": name}, operation())

    async def _own_folder(self, account: Account) -> FolderView | None:
        return self._rng.choice([folder for folder in account.view.folders() if folder.name in NAMES] or [None])

    async def _delete_folder(self, account: Account) -> None:
        folder = await self._own_folder(account)
        if folder is None:
            return

        async def operation() -> dict[str, Any]:
            await account.delete_folder(folder.id)
            return {}

        await self._enter("delete", account, {"folder": folder.id}, operation())

    async def _rename_folder(self, account: Account) -> None:
        folder = await self._own_folder(account)
        if folder is None:
            return
        name = self._rng.choice(NAMES)

        async def operation() -> dict[str, Any]:
            await account.rename_folder(folder.id, name)
            return {}

        await self._enter("rename", account, {"folder": folder.id, "name": name}, operation())

    async def _read(self, account: Account) -> None:
        """What a view shows can be read, or was expunged since; the auditor compares the bytes at the end."""
        folder = self._folder(account, full=True)
        if folder is None:
            return
        row = self._rng.randrange(folder.count)

        async def operation() -> dict[str, Any]:
            raw = await folder.read(row)
            assert len(raw) == int(folder.sizes()[row]), f"{len(raw)} bytes instead of {int(folder.sizes()[row])}"
            return {}

        await self._enter("read", account, {"folder": folder.id}, operation())

    async def _reclaim(self, account: Account) -> None:
        async def operation() -> dict[str, Any]:
            listed = await Forgetting(account).run()
            return {"listed": listed is not None}

        await self._enter("reclaim", account, {}, operation())

    async def _snapshot(self, account: Account) -> None:
        async def operation() -> dict[str, Any]:
            await account.parts.snapshots.write()
            return {}

        await self._enter("snapshot", account, {}, operation())


async def work(task: Task) -> None:
    """Until standard input ends; then finish what is queued."""
    store, offload = make_store(task)
    for pod in task.gone:
        store.transit.pod_gone(pod)
    store.start()
    worker = Worker(task, store)
    stop = asyncio.Event()
    clients = [asyncio.create_task(worker.live(stop)) for _ in range(task.clients)]
    await asyncio.to_thread(sys.stdin.buffer.read)
    stop.set()
    await asyncio.gather(*clients)
    await store.drain()
    offload.close()


if __name__ == "__main__":
    asyncio.run(work(msgspec.json.decode(sys.argv[1], type=Task)))

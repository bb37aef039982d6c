"""What is in the bucket after several processes worked on it, compared with what their ledgers say they asked for and were told.

The bucket is read by the simulation's second, plain implementation of the log (`tests.sim.truth`), which shares no code with the store.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailpod.errors import ObjectNotFound
from mailpod.ports import ObjectStore
from mailpod.store.keys import Keys, account_name
from tests.sim.truth import EMPTIED, STRIPPED, Entry, Replay, body_of, decode_entry, uid_list
from tests.support.store_worker import compose

_ID = re.compile(rb"^Message-ID: <(pod-[0-9]+-[0-9]+-[0-9]+)@store\.example\.org>\r$", re.MULTILINE)

Record = dict[str, Any]


def read_ledgers(paths: Iterable[Path]) -> list[Record]:
    """All operations, each with its outcome; what was begun and never answered is "unknown"."""
    records: dict[str, Record] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            part = json.loads(line)
            records.setdefault(part["id"], {"outcome": "unknown"}).update(part)
    return list(records.values())


@dataclass
class Log:
    """One account's log, replayed."""

    address: str
    replay: Replay = field(default_factory=Replay)
    entries: dict[int, Entry] = field(default_factory=dict)
    born: dict[tuple[int, int, int], int] = field(default_factory=dict)  # (seq, folder, UID) → EMAILID, of appends
    removed: set[tuple[int, int]] = field(default_factory=set)  # (folder, UID)
    dropped: set[int] = field(default_factory=set)  # folders

    def add(self, data: bytes) -> None:
        """The next entry. Raises `Contradiction` (UIDs, UIDVALIDITY, transit records) or AssertionError (the chain)."""
        entry = decode_entry(data)
        before = self.entries.get(entry.seq - 1)
        assert entry.previous == (before.commit if before else bytes(16)), f"{self.address}: the chain breaks at {entry.seq}"
        self.replay.apply(entry)
        self.entries[entry.seq] = entry
        for number, *fields in entry.operations:
            if number == 2:
                folder, uid, email, _saved, rows = fields[:5]
                self.born.update({(entry.seq, folder, uid + at): email + at for at in range(len(rows))})
            elif number == 5 or (number == 4 and fields[5]):
                self.removed.update((fields[0], uid) for uid in uid_list(fields[1]))
            elif number == 7:
                self.dropped.add(fields[0])

    def idents(self) -> tuple[dict[int, bytes], int]:
        """The bytes of every message that ever arrived and was not reclaimed, by EMAILID; how many were reclaimed."""
        bodies: dict[int, bytes] = {}
        emptied = 0
        for email, (_kind, seq, index, _big) in self.replay.places.items():
            entry = self.entries[seq]
            if entry.flags & (EMPTIED | STRIPPED) or entry.lengths[len(entry.lengths) // 2 + index] == 0:
                emptied += 1
            else:
                bodies[email] = body_of(entry, index)
        return bodies, emptied

    def says(self, seq: int, number: int, folder: int) -> list[list[Any]]:
        """The fields of one kind of operation on `folder` in entry `seq`."""
        return [one[1:] for one in self.entries[seq].operations if one[0] == number and one[1] == folder]


async def read_log(objects: ObjectStore, prefix: str, address: str) -> Log:
    """Every entry of an account, from the first until 404."""
    log = Log(address)
    keys = Keys(prefix).log(account_name(address))
    while True:
        try:
            stored = await objects.get(keys.entry(len(log.entries) + 1))
        except ObjectNotFound:
            return log
        log.add(stored.data)


@dataclass
class Audit:
    """The count. `wrong` says in words what else is not as it should be."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def check(self, logs: dict[str, Log], records: list[Record]) -> None:
        """Compare."""
        for record in records:
            self.counts[record["outcome"]] += 1
            if record["outcome"] == "wrong":
                self.wrong.append(f"{record['kind']} on {record['account']}: {record['why']}")
        self._arrivals(logs, records)
        for record in records:
            if record["outcome"] == "ok":
                self._told(logs[record["account"]], record)
        self._removals(logs, records)

    def _arrivals(self, logs: dict[str, Log], records: list[Record]) -> None:
        """lost, corrupt, phantom, duplicates; transit exactly once."""
        sent: dict[tuple[str, str], tuple[Record, bytes]] = {}  # (account, identity)
        for record in records:
            for ident, size in record.get("messages", ()):
                if record["kind"] == "append":
                    sent[record["account"], ident] = (record, compose(ident, size))
                else:
                    for person in record["recipients"]:
                        sent[person, ident] = (record, f"Delivered-To: {person}\r\n".encode() + compose(ident, size))
        arrived: dict[str, dict[int, bytes]] = {}
        for address, log in logs.items():
            bodies, emptied = log.idents()
            arrived[address] = bodies
            self.counts["reclaimed"] += emptied
            self.counts["messages"] += len(bodies) + emptied
            alive = log.replay.emails()
            # A living message's body must be there; the others may have been forgotten.
            self.counts["lost"] += len(alive - bodies.keys())
            found: Counter[str] = Counter()
            for raw in bodies.values():
                match = _ID.search(raw)
                ident = match[1].decode() if match else ""
                if (address, ident) not in sent:
                    self.counts["phantom"] += 1
                    continue
                record, expected = sent[address, ident]
                found[ident] += 1
                self.counts["phantom"] += record["outcome"] == "fail"
                self.counts["corrupt"] += raw != expected
            self.counts["duplicates"] += sum(count - 1 for count in found.values())
        for record in records:
            if record["outcome"] != "ok":
                continue
            if record["kind"] == "append":
                self._append(logs[record["account"]], arrived[record["account"]], record)
            elif record["kind"] == "accept":
                number, seq, index = (int(part, 16) for part in record["queue"].split("-"))
                for at, person in enumerate(record["recipients"]):
                    there = (number, seq, index, at) in logs[person].replay.applied
                    self.counts["delivered by transit"] += there
                    self.counts["lost"] += not there

    def _append(self, log: Log, bodies: dict[int, bytes], record: Record) -> None:
        """What was told of an append is in the entry that it names, with these bytes unless they were reclaimed since."""
        for uid, (ident, size) in zip(record["uids"], record["messages"], strict=True):
            email = log.born.get((record["seq"], record["folder"], uid))
            self.counts["lost"] += email is None
            self.counts["corrupt"] += email in bodies and bodies[email] != compose(ident, size)

    def _told(self, log: Log, record: Record) -> None:
        """Every other change that was acknowledged is in the log, and did what was told."""
        kind, folder = record["kind"], record.get("folder", 0)
        if kind == "flags" and record["changed"]:
            done = {uid for fields in log.says(record["seq"], 3, folder) for uid in uid_list(fields[1])}
            if not done.issuperset(record["changed"]):
                self.wrong.append(f"flags not changed: {record}")
        elif kind in ("copy", "move") and record["uids"]:
            pairs = {
                (old, fields[3] + at)
                for fields in log.says(record["seq"], 4, folder)
                if fields[2] == record["target"] and fields[5] == (kind == "move")
                for at, old in enumerate(uid_list(fields[1]))
            }
            if not pairs.issuperset(zip(record["uids"], record["new_uids"], strict=True)):
                self.wrong.append(f"not copied: {record}")
        elif kind == "expunge" and record["uids"]:
            done = {uid for fields in log.says(record["seq"], 5, folder) for uid in uid_list(fields[1])}
            if not done.issuperset(record["uids"]):
                self.wrong.append(f"not expunged: {record}")
        elif kind == "create" and folder not in log.replay.ever_folders:
            self.wrong.append(f"not created: {record}")
        elif kind == "delete" and folder not in log.dropped:
            self.wrong.append(f"not deleted: {record}")

    def _removals(self, logs: dict[str, Log], records: list[Record]) -> None:
        """Nothing went away that nobody asked to go."""
        wanted: dict[str, set[tuple[int, int]]] = defaultdict(set)
        unwanted: dict[str, set[int]] = defaultdict(set)
        for record in records:
            if record["outcome"] == "fail":
                continue
            if record["kind"] in ("move", "expunge"):
                wanted[record["account"]].update((record["folder"], uid) for uid in record["asked"])
            elif record["kind"] == "delete":
                unwanted[record["account"]].add(record["folder"])
        for address, log in logs.items():
            for gone in log.removed - wanted[address]:
                self.wrong.append(f"{address}: {gone} went away, which nobody asked")
                self.counts["lost"] += 1
            for folder in log.dropped - unwanted[address]:
                self.wrong.append(f"{address}: folder {folder} went away, which nobody asked")
                self.counts["lost"] += 1

"""Watches every write to the bucket: keeps what landed, and says at once when something is overwritten or deleted that nobody listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tests.sim.faulty import Bucket, Write
from tests.sim.truth import EMPTIED, STRIPPED, Entry, Undecodable, decode_entry, number_list

Fail = Callable[[str], None]


class Log:
    """What is known of one log from its writes alone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries: dict[int, Entry] = {}  # as they landed
        self.landed: dict[int, float] = {}  # Last-Modified of the landing
        self.landed_at: dict[int, float] = {}  # virtual time
        self.emptiable: dict[int, int] = {}  # seq → the reclaim that lists it
        self.deletable: set[str] = set()  # big ids that a reclaim lists
        self.erases: list[tuple[int, int]] = []  # seq, incarnation
        self.incarnation = 0  # 0: closed
        self.applied: dict[tuple[int, int, int, int], int] = {}  # transit log, seq, index, recipient → the entry that applied it
        # Of transit logs.
        self.holds: list[tuple[float, str, bytes]] = []  # virtual time, pod, nonce
        self.pending: dict[tuple[int, int], dict[int, list[object]]] = {}  # (seq, index) → recipients that do not have it yet

    def head(self) -> int:
        """The highest number used."""
        return max(self.entries, default=0)

    def times(self, *, purged: bool = False) -> dict[int, float]:
        """Landing times, made monotone; for one who begins at each erase when `purged`, since what was before is no longer told."""
        out: dict[int, float] = {}
        last = 0.0
        erases = {seq for seq, _ in self.erases} if purged else ()
        for seq in sorted(self.landed):
            last = out[seq] = self.landed[seq] if seq in erases else max(last, self.landed[seq])
        return out


class Archive:
    """All logs of the bucket."""

    def __init__(self, bucket: Bucket, fail: Fail) -> None:
        self.logs: dict[str, Log] = {}
        self.bigs: dict[str, bytes] = {}  # every object outside log/, snap/ and sum/ that ever was, by key
        self.derived_written: set[str] = set()
        self.overwrites: dict[str, int] = defaultdict(int)
        self._bucket = bucket
        self._fail = fail
        bucket.observers.append(self._see)

    def log(self, name: str) -> Log:
        """A log by its name (`accounts/example.com/alice`)."""
        found = self.logs.get(name)
        if found is None:
            found = self.logs[name] = Log(name)
        return found

    def _see(self, write: Write) -> None:
        if write.operation == "damage":
            return
        _, _, rest = write.key.partition("v1/")
        if "/log/" in rest:
            name, _, number = rest.partition("/log/")
            self._see_entry(self.log(name), int(number, 16), write)
        elif "/snap/" in rest or "/sum/" in rest:
            self.derived_written.add(write.key)
        elif "/big/" in rest:
            self._see_big(rest, write)
        else:
            self._fail(f"10: {write.pod} writes {write.key}, which belongs to nothing")

    # Entries.

    def _see_entry(self, log: Log, seq: int, write: Write) -> None:
        if write.after is None:
            self._fail(f"10: {write.pod} deletes {write.key}: an entry is absent")
            return
        try:
            entry = decode_entry(write.after)
        except Undecodable as error:
            self._fail(f"14: {write.pod} writes {write.key}, which does not decode: {error}")
            return
        if entry.seq != seq:
            self._fail(f"4: {write.pod} writes entry {entry.seq} as {write.key}")
            return
        if write.before is None:
            self._see_landing(log, seq, entry, write)
        else:
            self._see_overwrite(log, seq, entry, write)

    def _see_landing(self, log: Log, seq: int, entry: Entry, write: Write) -> None:
        if seq in log.entries:
            self._fail(f"4: {write.pod} creates {write.key} a second time")
            return
        before = log.entries.get(seq - 1)
        if seq != 1 and before is None:
            self._fail(f"1: {write.pod} creates {write.key} though {seq - 1} is not there")
        elif before is not None and entry.previous != before.commit:
            self._fail(f"1: {write.key} does not chain to the entry before")
        if any(other.commit == entry.commit for other in log.entries.values()):
            self._fail(f"3: commit id of {write.key} landed before in the same log")
        if entry.flags & EMPTIED:
            self._fail(f"2: {write.pod} creates {write.key} as an emptied entry")
        log.entries[seq] = entry
        log.landed[seq] = self._bucket.last_modified(write.key)
        log.landed_at[seq] = write.at
        if log.name.startswith("accounts/"):
            self._note_decisions(log, seq, entry)
        else:
            self._note_transit(log, seq, entry, write)

    def _note_decisions(self, log: Log, seq: int, entry: Entry) -> None:
        for operation in entry.operations:
            if operation[0] == 1:
                log.incarnation = seq
            elif operation[0] == 14:
                for listed in number_list(operation[3]):
                    log.emptiable.setdefault(listed, seq)
                log.deletable.update(operation[4])
            elif operation[0] in (12, 13):
                self._note_applied(log, seq, operation)
            elif operation[0] == 16:
                log.erases.append((seq, operation[1]))
                log.incarnation = 0

    def _note_applied(self, log: Log, seq: int, operation: list[Any]) -> None:
        if operation[0] == 12:
            number, at, index, recipient = operation[1:5]
            log.applied[number, at, index, recipient] = seq
        elif operation[0] == 13:
            undone = [key for key in self.log(f"transit/{operation[1]:02x}").pending if key[0] <= operation[2]]
            if undone:
                self._fail(
                    f"13: entry {seq} of {log.name} moves transit {operation[1]}'s watermark to {operation[2]}, yet {undone} is not done"
                )

    def _note_transit(self, log: Log, seq: int, entry: Entry, write: Write) -> None:
        for operation in entry.operations:
            if operation[0] == 1:
                log.holds.append((write.at, operation[1], operation[2]))
            elif operation[0] == 2:
                log.pending[seq, operation[1]] = dict(enumerate(operation[3]))
            elif operation[0] == 3:
                self._note_done(log, seq, operation)
            elif operation[0] == 4:
                for listed in number_list(operation[1]):
                    if any(key[0] == listed for key in log.pending):
                        self._fail(f"10: {log.name} entry {seq} lists {listed}, which is not done")
                    log.emptiable.setdefault(listed, seq)
                log.deletable.update(operation[2])

    def _note_done(self, log: Log, seq: int, operation: list[Any]) -> None:
        """13: done comes after the recipient has it (or never can)."""
        key = (operation[1], operation[2])
        for number in operation[3]:
            recipient = log.pending.get(key, {}).pop(number, None)
            if recipient is None:
                self._fail(f"13: {log.name} entry {seq} marks {key} recipient {number} done, which is not pending")
                continue
            address, incarnation = recipient[0], recipient[1]
            assert isinstance(address, str)
            local, _, domain = address.rpartition("@")
            account = self.log(f"accounts/{domain}/{local}")
            delivered = (int(log.name.rpartition("/")[2], 16), *key, number) in account.applied
            if not delivered and account.incarnation == incarnation:
                self._fail(f"13: {log.name} entry {seq} marks {key} done for {address}, who does not have it")
        if not log.pending.get(key, True):
            del log.pending[key]

    def held_since(self, name: str, nonce: bytes, since: float, now: float) -> bool:
        """Whether the transit log was held by `nonce` at any moment between."""
        ours = False
        for at, _, other in self.log(name).holds:
            if at > since and ours:
                return True
            ours = other == nonce
            if ours and since <= at <= now:
                return True
        return ours

    def _see_overwrite(self, log: Log, seq: int, entry: Entry, write: Write) -> None:
        self.overwrites[log.name] += 1
        first = log.entries[seq]
        if entry.commit != first.commit or entry.previous != first.previous:
            self._fail(f"4: {write.pod} changes the commit id of {write.key}")
        if not entry.flags & EMPTIED:
            self._fail(f"10: {write.pod} overwrites {write.key} with an entry that is not emptied")
            return None
        if not log.name.startswith("accounts/"):
            return self._see_transit_overwrite(log, seq, entry, write)
        if abs(entry.landing - log.landed[seq]) > 0.5 and abs(entry.landing - log.times()[seq]) > 0.5:
            self._fail(f"15: {write.pod} empties {write.key} and records landing {entry.landing}, it was {log.landed[seq]}")
        if entry.flags & STRIPPED:
            if not any(erased > seq for erased, _ in log.erases):
                self._fail(f"10: {write.pod} strips {write.key}, but no later erase has landed")
            return None
        if entry.head != first.head:
            self._fail(f"10: {write.pod} empties {write.key} and changes its operations")
        if seq not in log.emptiable:
            self._fail(f"10: {write.pod} empties {write.key}, which no landed reclaim lists")
        return None

    def _see_transit_overwrite(self, log: Log, seq: int, entry: Entry, write: Write) -> None:
        if entry.head != log.entries[seq].head:
            self._fail(f"10: {write.pod} empties {write.key} and changes its operations")
        if seq not in log.emptiable:
            self._fail(f"10: {write.pod} empties {write.key}, which no landed reclaim lists")

    # Bodies of their own.

    def _see_big(self, rest: str, write: Write) -> None:
        owner, _, name = rest.partition("/big/")
        if write.after is not None:
            if self.bigs.get(write.key, write.after) != write.after:
                self._fail(f"10: {write.pod} overwrites {write.key}")
            self.bigs[write.key] = write.after
            return
        if owner.startswith("transit/"):
            if name not in self.log(owner).deletable:
                self._fail(f"10: {write.pod} deletes {write.key}, which no landed reclaim lists")
            return
        account, _, incarnation = owner.rpartition("/")
        log = self.log(account)
        number = int(incarnation, 16)
        if name not in log.deletable and not any(erased == number for _, erased in log.erases):
            self._fail(f"10: {write.pod} deletes {write.key}, which no landed reclaim or erase lists")

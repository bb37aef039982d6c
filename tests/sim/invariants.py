"""The sixteen invariants of the log, checked when a run has come to rest; what can be seen at once, `archive` says at once.

Every failure begins with the number of the invariant that it breaks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from mailpod.store.facade import Account
from tests.sim.archive import Archive, Log
from tests.sim.ledger import FAILED, OK, Sent, Told, ident_of
from tests.sim.pictures import Picture, picture
from tests.sim.truth import BIG, EMPTIED, STRIPPED, Contradiction, Entry, Message, Replay, Undecodable, body_of, decode_entry, decode_frame

if TYPE_CHECKING:
    from tests.sim.cluster import Pod
    from tests.sim.scenario import Run, Seen, SeenPast
    from tests.sim.truth import Folder

CLOCK_SLACK_S = 1.0  # Last-Modified is whole seconds; how far the bucket's nodes differ comes on top
Place = tuple[str, int, int, str]
DELETED = 1 << 3  # the flag that lets any expunge take a message


class AuditedReplay(Replay):
    """A replay that also asks for each removal whether any client wanted it."""

    def __init__(self, run: Run, address: str) -> None:
        super().__init__()
        self._run = run
        self._address = address
        self.arrivals: list[tuple[int, int, Message]] = []  # seq, incarnation, message: appended, not copied
        self.restored_seqs: set[int] = set()  # those that some later entry brings back
        self._pasts: dict[int, set[tuple[int, int]]] = {}  # EMAILID and flags in the states of these
        self._restoring = 0

    def remember(self) -> None:
        """Keep this state, if it is brought back later."""
        if self.seq in self.restored_seqs:
            self._pasts[self.seq] = {
                (message.email, message.flags) for folder in self.folders.values() for message in folder.messages.values()
            }

    def restored(self, seq: int) -> None:
        super().restored(seq)
        self._restoring = seq

    def inserted(self, folder_id: int, uid: int, saved: int, fixed: bytes, flags: bytes, bigs: list[list[object]] = []) -> None:  # noqa: B006 - read only
        super().inserted(folder_id, uid, saved, fixed, flags, bigs)
        for message in list(self.folders[folder_id].messages.values())[-len(flags) // 8 :]:
            if (message.email, message.flags) not in self._pasts.get(self._restoring, ()):
                raise Contradiction(
                    f"15: entry {self.seq} brings back EMAILID {message.email}, which state {self._restoring} did not have so"
                )

    def _take(self, folder: Folder, uid: int) -> Message:
        ledger = self._run.ledger
        message = folder.messages.get(uid)
        if (
            message is not None
            and not message.flags & DELETED
            and (self._address, self.incarnation, folder.id, uid) not in ledger.removable
            and not (folder.name == "INBOX" and (self._address, self.incarnation) in ledger.emptied_inboxes)
        ):
            raise Contradiction(f"2: entry {self.seq} of {self._address} removes UID {uid} of folder {folder.id}, which nobody asked for")
        return super()._take(folder, uid)

    def folder_deleted(self, folder_id: int) -> None:
        if (self._address, self.incarnation, folder_id) not in self._run.ledger.dropped_folders:
            raise Contradiction(f"2: entry {self.seq} of {self._address} deletes folder {folder_id}, which nobody asked for")
        super().folder_deleted(folder_id)

    def appended(self, folder_id: int, uid: int, email: int, saved: int, rows: list[list[int]], bigs: list[list[object]] = []) -> None:  # noqa: B006 - read only
        super().appended(folder_id, uid, email, saved, rows, bigs)
        folder = self.folders[folder_id]
        for number in range(len(rows)):
            self.arrivals.append((self.seq, self.incarnation, folder.messages[uid + number]))

    def erased(self, incarnation: int, *rest: object) -> None:
        if (self._address, incarnation) not in self._run.ledger.erased:
            raise Contradiction(f"2: entry {self.seq} erases {self._address}, which nobody asked for")
        super().erased(incarnation, *rest)  # type: ignore[arg-type]


class Lives:
    """For each body, while it was referred to: which states it belongs to."""

    def __init__(self) -> None:
        self.alive: dict[int, int] = {}  # EMAILID → since seq
        self.last: dict[int, int] = {}  # EMAILID → the last seq at which it was there

    def turn(self, seq: int, emails: set[int]) -> tuple[set[int], set[int]]:
        """State `seq` has these. Returns what came and what went."""
        before = self.alive.keys()
        gone, came = before - emails, emails - before
        for email in gone:
            del self.alive[email]
            self.last[email] = seq - 1
        for email in came:
            self.alive[email] = seq
        return came, gone

    def since(self, floor: int) -> set[int]:
        """EMAILIDs in any state from `floor` on."""
        return set(self.alive) | {email for email, last in self.last.items() if last >= floor}


class Reckoning:
    """The check of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._ledger = run.ledger
        self.archive = Archive(run.bucket, run.ledger.fail)
        self._seen: dict[str, dict[int, list[Seen]]] = defaultdict(lambda: defaultdict(list))
        self._told: dict[str, dict[int, list[Told]]] = defaultdict(lambda: defaultdict(list))

    def name(self, address: str) -> str:
        """An account's log name."""
        local, _, domain = address.rpartition("@")
        return f"accounts/{domain}/{local}"

    def incarnation(self, address: str) -> int:
        """As of what has landed."""
        return self.archive.log(self.name(address)).incarnation

    def pending(self) -> list[tuple[str, tuple[int, int]]]:
        """What is accepted and not yet everywhere, as of what has landed."""
        return [(name, key) for name, log in self.archive.logs.items() for key in log.pending]

    async def check(self, pod: Pod) -> None:
        """Everything; `pod` is fresh and the bucket healthy."""
        for seen in self._run.seen:
            self._seen[seen.account][seen.picture.seq].append(seen)
        for told in self._ledger.told:
            self._told[told.account][told.seq].append(told)
        self._check_numbers()
        for address in self._run.addresses:
            await self._check_account(address, pod)

    # The raw bucket.

    def _check_numbers(self) -> None:
        """1, 4, 10: every number up to the head is there and is what landed."""
        for log in self.archive.logs.values():
            for seq in range(1, log.head() + 1):
                key = self._key(log, seq)
                data = self._run.bucket.peek(key)
                if data is None:
                    self._ledger.fail(f"10: {key} is absent")
                    continue
                try:
                    entry = decode_entry(data)
                except Undecodable:
                    self._ledger.fail(f"14: {key} does not decode")
                    continue
                if entry.commit != log.entries[seq].commit:
                    self._ledger.fail(f"4: {key} has another commit id than it had")

    def _key(self, log: Log, seq: int) -> str:
        return f"{self._run.root}{log.name}/log/{seq:016x}"

    # One account.

    async def _check_account(self, address: str, pod: Pod) -> None:
        log = self.archive.log(self.name(address))
        replay = AuditedReplay(self._run, address)
        replay.restored_seqs = {operation[1] for entry in log.entries.values() for operation in entry.operations if operation[0] == 18}
        lives = Lives()
        moments: list[tuple[float, float, Picture]] = []
        purged_times = log.times(purged=True)
        times = log.times()
        wanted_moments = [past for past in self._run.seen_past if past.account == address]
        reclaims: list[tuple[int, list[object]]] = []
        fates: dict[int, tuple[int, int]] = {}
        for seq in range(1, log.head() + 1):
            entry = log.entries[seq]
            before_floor = replay.floor
            try:
                replay.apply(entry)
            except Contradiction as error:
                self._ledger.fail(f"{error} ({address})")
                return
            replay.remember()
            lives.turn(seq, replay.emails())
            if wanted_moments:
                moments.append((times[seq], purged_times[seq], replay.picture()))
            for operation in entry.operations:
                if operation[0] == 14:
                    self._check_reclaim(log, seq, operation, replay, lives, before_floor)
                    reclaims.append((seq, operation))
            self._check_seen(address, replay, times[seq])
            self._check_told(address, replay)
            fates[seq] = (replay.floor, 0 if replay.closed else replay.incarnation)
        self._check_pasts(address, wanted_moments, moments, fates)
        self._check_listed_stay_dead(log, replay, lives, reclaims)
        self._check_bodies(log, replay, lives, address)
        self._check_sent(log, replay, address)
        await self._check_fresh_view(pod, address, replay)

    def _check_seen(self, address: str, replay: AuditedReplay, time: float) -> None:
        """11: every pod's view equals a replay to its seq."""
        for seen in self._seen[address].pop(replay.seq, ()):
            if seen.incarnation != replay.incarnation and not replay.closed:
                self._ledger.fail(
                    f"16: {seen.pod} took {address} at {replay.seq} for incarnation {seen.incarnation}, not {replay.incarnation}"
                )
            wrong = difference(seen.picture, replay.picture())
            if wrong:
                self._ledger.fail(f"11: {seen.pod}'s view of {address} at {replay.seq} differs from the replay: {wrong}")
            # Of an own commit the landing is not known before somebody asks for it; a later time than the true one is always wrong.
            if seen.time > time + 1e-6:
                self._ledger.fail(f"15: {seen.pod}'s view of {address} at {replay.seq} is of {seen.time}, its entry landed at {time}")

    def _check_told(self, address: str, replay: AuditedReplay) -> None:
        """2: what a client was told is in the state that it was told."""
        for told in self._told[address].pop(replay.seq, ()):
            wrong = _contradicts(told, replay)
            if wrong:
                self._ledger.fail(f"2: {address} told {told.kind} done at {told.seq}, but {wrong}")

    def _check_pasts(
        self, address: str, pasts: list[SeenPast], moments: list[tuple[float, float, Picture]], fates: dict[int, tuple[int, int]]
    ) -> None:
        """15: `at` gives the state of the moment."""
        for past in pasts:
            # What landed while it was being read may count or not.
            heads = range(past.heads[0], past.heads[1] + 1)
            right = {
                max((was.seq for *times, was in moments if times[which] <= past.moment and was.seq <= head), default=0)
                for head in heads
                for which in (0, 1)
            }
            if past.picture is None:
                if not any(self._beyond(seq, head, fates) for head in heads for seq in right):
                    self._ledger.fail(f"15: {address} at {past.moment} is refused, yet state {right} is kept")
                continue
            found = next((was for _, _, was in moments if was.seq == past.picture.seq), None)
            wrong = difference(past.picture, found) if found is not None else "no such state"
            if wrong or past.picture.seq not in right:
                self._ledger.fail(f"15: {address} at {past.moment} is seq {past.picture.seq}, should be one of {right}: {wrong}")

    @staticmethod
    def _beyond(seq: int, head: int, fates: dict[int, tuple[int, int]]) -> bool:
        """Whether state `seq` could rightly be refused to one whose newest state was `head`."""
        floor, incarnation = fates.get(head, (0, 0))
        return seq == 0 or seq < floor or incarnation == 0 or fates[seq][1] != incarnation

    # Reclaiming.

    def _check_reclaim(self, log: Log, seq: int, operation: list[object], replay: AuditedReplay, lives: Lives, _before: int) -> None:
        """10: a reclaim's floor is far enough back, and it lists nothing that a state from there on refers to."""
        from tests.sim.truth import number_list

        floor, watermark, entries, bigs = operation[1], operation[2], operation[3], operation[4]
        assert isinstance(floor, int)
        assert isinstance(watermark, str)
        assert isinstance(entries, bytes)
        assert isinstance(bigs, list)
        times = log.times()
        oldest = times[seq] - self._run.profile.retention_s + CLOCK_SLACK_S + 2 * self._run.bucket.clock_skew_s
        in_force = max((number for number in range(1, seq) if times[number] <= oldest), default=0)
        last_erase = max((erased for erased, _ in log.erases if erased < seq), default=0)
        if floor > max(in_force, last_erase):
            self._ledger.fail(
                f"10: reclaim {seq} of {log.name} has floor {floor}; {self._run.profile.retention_s} s before, {in_force} was in force"
            )
        listed = set(number_list(entries))
        dead_bigs = set(bigs)
        for email in lives.since(floor):
            kind, entry, _, big = replay.places[email]
            if (kind == "entry" and entry in listed) or (kind == "big" and big in dead_bigs):
                self._ledger.fail(
                    f"9: reclaim {seq} of {log.name} (floor {floor}) lists the body of EMAILID {email}, which a kept state refers to"
                )

    def _check_listed_stay_dead(self, log: Log, replay: AuditedReplay, lives: Lives, reclaims: list[tuple[int, list[object]]]) -> None:
        for email in lives.alive:
            kind, entry, _, big = replay.places[email]
            if (kind == "entry" and entry in log.emptiable) or (kind == "big" and big in log.deletable):
                self._ledger.fail(
                    f"9: EMAILID {email} of {log.name} is alive, and its body is listed by a reclaim (of {[seq for seq, _ in reclaims]})"
                )

    def _check_bodies(self, log: Log, replay: AuditedReplay, lives: Lives, address: str) -> None:
        """9: every body that a state since the floor refers to is in the bucket, whole."""
        for email in sorted(lives.since(replay.floor)):
            place = replay.places[email]
            original = self._original(log, place, address)
            now = self._in_bucket(log, place)
            if original is None or now != original:
                kind, seq, index, big = place
                self._ledger.fail(
                    f"9: body of EMAILID {email} of {log.name} ({kind} {seq}/{index}{big}) since floor {replay.floor} is lost"
                )

    def _original(self, log: Log, place: Place, address: str) -> bytes | None:
        kind, seq, index, big = place
        try:
            if kind == "entry":
                return body_of(log.entries[seq], index)
            return join_big(next(data for key, data in self.archive.bigs.items() if key.endswith(f"/big/{big}") and f"/{log.name}/" in key))
        except (Undecodable, StopIteration, KeyError):
            return None

    def _in_bucket(self, log: Log, place: Place) -> bytes | None:
        kind, seq, index, big = place
        bucket = self._run.bucket
        try:
            if kind == "entry":
                data = bucket.peek(self._key(log, seq))
                return body_of(decode_entry(data), index) if data is not None else None
            for key in bucket.all_keys(f"{self._run.root}{log.name}/"):
                if key.endswith(f"/big/{big}"):
                    return join_big(bucket.peek(key) or b"")
        except Undecodable:
            return None
        return None

    # What the clients know.

    def _check_sent(self, log: Log, replay: AuditedReplay, address: str) -> None:
        """2, 13, 16: each message that was acknowledged arrived once, none twice, none that nobody sent, none at a later owner's."""
        arrived: Counter[bytes] = Counter()
        where: dict[bytes, tuple[int, int]] = {}
        for seq, incarnation, message in replay.arrivals:
            raw = self._original(log, self._first_place(log, seq, message), address)
            if raw is None:
                self._ledger.fail(f"9: entry {seq} of {log.name} landed without the body of EMAILID {message.email}")
                continue
            arrived[raw] += 1
            where[raw] = (seq, incarnation)
            if not any(sent.raw == raw and sent.account == address for sent in self._ledger.sent.get(ident_of(raw), ())):
                self._ledger.fail(f"14: entry {seq} of {log.name} has a message that nobody sent: {raw[:80]!r}")
        for sents in self._ledger.sent.values():
            for sent in sents:
                if sent.account == address and sent.how != "remote":
                    self._judge(sent, arrived[sent.raw], where.get(sent.raw), log)

    def _first_place(self, log: Log, seq: int, message: Message) -> Place:
        for operation in log.entries[seq].operations:
            if operation[0] == 2 and operation[3] <= message.email < operation[3] + len(operation[5]):
                row = operation[5][message.email - operation[3]]
                if row[3] != BIG:
                    return ("entry", seq, row[5], "")
                big = next(big for big in operation[6] if big[0] == message.email)
                return ("big", 0, 0, big[1])
        return ("entry", seq, 0, "")

    def _judge(self, sent: Sent, count: int, where: tuple[int, int] | None, log: Log) -> None:
        name = "13" if sent.how == "transit" else "3"
        if count > 1:
            self._ledger.fail(f"{name}: {sent.ident} ({sent.how}) is {count} times in {log.name}")
        if sent.outcome == FAILED and count:
            self._ledger.fail(f"2: {sent.ident} was refused, and is in {log.name}")
        if sent.outcome == OK and not count and not self._excused(sent, log):
            self._ledger.fail(
                f"{'13' if sent.how == 'transit' else '2'}: {sent.ident} ({sent.how}) was acknowledged and is lost; {log.name}"
            )
        if where is not None and sent.incarnation not in (None, where[1]):
            self._ledger.fail(
                f"16: {sent.ident} was for incarnation {sent.incarnation} of {log.name}, and is with {where[1]} (entry {where[0]})"
            )
        if sent.place is not None and where is not None and sent.seq != where[0]:
            self._ledger.fail(f"2: {sent.ident} was told at {sent.seq} and landed in {where[0]} of {log.name}")

    def _excused(self, sent: Sent, log: Log) -> bool:
        """Mail for an account that was erased before it got there goes with the account."""
        if sent.how != "transit" or not log.erases:
            return False
        return sent.incarnation in (None, 0) or any(incarnation == sent.incarnation for _, incarnation in log.erases)

    # With the store itself.

    async def _check_fresh_view(self, pod: Pod, address: str, replay: AuditedReplay) -> None:
        """8, 9, 11: a pod that opens the account now sees the replay, with snapshots and without any, and can read all of it."""
        run = self._run
        if replay.closed:
            return
        await self._check_opened(pod, address, replay, "with snapshots")
        if run.rng.random() < 0.5:
            for key in list(run.bucket.all_keys(f"{run.root}{self.name(address)}/")):
                if "/snap/" in key or "/sum/" in key:
                    run.bucket.delete("reckoning", [key])
            other = run.cluster.start_pod()
            await self._check_opened(other, address, replay, "without snapshots")

    async def _check_opened(self, pod: Pod, address: str, replay: AuditedReplay, how: str) -> None:
        task = pod.process.start(self._open_and_read(pod, address, replay, how))
        await task

    async def _open_and_read(self, pod: Pod, address: str, replay: AuditedReplay, how: str) -> None:
        run = self._run
        try:
            account: Account = await pod.store.open(address)
            await account.refresh()
            wrong = difference(picture(account.view), replay.picture())
            if wrong or account.view.seq != replay.seq:
                self._ledger.fail(f"8: {address} opened {how} at {account.view.seq} differs from the replay to {replay.seq}: {wrong}")
                return
            for folder in account.view.folders():
                uids = folder.uids()
                count = 0
                async for row, raw in folder.read_many(folder.rows_of(uids)):
                    count += 1
                    run.check_body((address, account.incarnation, folder.id, int(uids[row])), raw)
                if count != folder.count:
                    self._ledger.fail(f"9: of {folder.count} messages in {address} {folder.name} only {count} can be read ({how})")
        except Exception as error:
            self._ledger.fail(f"9: {address} opened {how}: {error!r}")
            run.note_traceback()


def join_big(data: bytes) -> bytes:
    """A big body out of its pieces. Raises `Undecodable`."""
    from tests.sim.truth import FRAME

    out = []
    at = number = 0
    while at < len(data):
        length = FRAME.unpack_from(data, at)[1] if len(data) - at >= FRAME.size else 0
        out.append(decode_frame(data[at : at + FRAME.size + length], 0, number))
        at += FRAME.size + length
        number += 1
    return b"".join(out)


def difference(found: Picture, expected: Picture) -> str:
    """The first thing in which two pictures differ, "" for none."""
    if found == expected:
        return ""
    names = {folder.id: folder for folder in expected.folders}
    for folder in found.folders:
        other = names.pop(folder.id, None)
        if other is None:
            return f"folder {folder.id} {folder.name!r} should not be there"
        if folder[:6] != other[:6]:
            return f"folder {folder[:6]} should be {other[:6]}"
        if folder.messages != other.messages:
            surplus = [message for message in folder.messages if message not in other.messages]
            missing = [message for message in other.messages if message not in folder.messages]
            return f"folder {folder.name!r}: surplus {surplus[:2]} missing {missing[:2]}"
    if names:
        return f"folders {sorted(names)} are missing"
    return f"{found[2:]} should be {expected[2:]}"


def _contradicts(told: Told, replay: Replay) -> str:
    """What in the state at the told seq is not as the client was told; "" for nothing."""
    if replay.incarnation != told.incarnation:
        return f"the account is incarnation {replay.incarnation}"
    folder = replay.folders.get(told.folder)
    if told.kind == "create":
        return "" if told.folder in replay.ever_folders else f"folder {told.folder} never was"
    if told.kind == "delete":
        return "" if folder is None else f"folder {told.folder} is there"
    if folder is None:
        return ""  # deleted in the same entry
    if told.kind == "expunge":
        left = [uid for uid in told.details if uid in folder.messages]
        return f"UIDs {left} are there" if left else ""
    if told.kind == "flags":
        uids, mode, _flags = told.details
        stale = [uid for uid in uids if uid in folder.messages and folder.messages[uid].modseq != told.seq]
        return f"UIDs {stale} have another MODSEQ ({mode})" if stale else ""
    old, new, target_id = told.details
    target = replay.folders.get(target_id)
    if target is not None and max(new) >= target.uidnext:
        return f"UIDs {new} were never given in folder {target_id}"
    if told.kind == "move" and any(uid in folder.messages for uid in old):
        return f"UIDs {old} were moved and are there"
    return ""


__all__ = ["EMPTIED", "STRIPPED", "AuditedReplay", "Entry", "Lives", "Reckoning", "difference", "join_big"]

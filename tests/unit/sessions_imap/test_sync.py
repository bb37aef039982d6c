"""Several sessions in two pods on one folder: what each is told, added to what it knew, is what is there (STORAGE.md, invariant 12)."""

from __future__ import annotations

import random
import re

import pytest

from tests.support.imap import Client, HandClock, Pod, make_pods

_FETCH = re.compile(rb"\* (\d+) FETCH \((.*)\)")


def _numbers(text: bytes) -> set[int]:
    found: set[int] = set()
    for item in text.split(b","):
        low, _, high = item.partition(b":")
        found.update(range(int(low), int(high or low) + 1))
    return found


class Mirror:
    """A mail program's cache: UIDs by sequence number, flags by UID; fed with nothing but what the server says."""

    def __init__(self) -> None:
        self.uids: list[int | None] = []  # None: EXISTS said so, its UID is not known yet
        self.flags: dict[int, frozenset[bytes]] = {}
        self.highest = 0
        self.uidvalidity = 0
        self.expunges_allowed = True

    def hear(self, output: bytes) -> None:
        for line in output.split(b"\r\n"):
            self._line(line)

    def _line(self, line: bytes) -> None:
        if match := re.match(rb"\* (\d+) EXISTS", line):
            count = int(match[1])
            assert count >= len(self.uids), "EXISTS never counts down"
            self.uids += [None] * (count - len(self.uids))
        elif match := re.match(rb"\* (\d+) EXPUNGE", line):
            assert self.expunges_allowed, "EXPUNGE during FETCH, STORE or SEARCH by sequence number"
            uid = self.uids.pop(int(match[1]) - 1)
            self.flags.pop(uid or 0, None)
        elif match := re.match(rb"\* VANISHED (\(EARLIER\) )?(\S+)", line):
            assert match[1] or self.expunges_allowed
            gone = _numbers(match[2])
            unknown = sorted(gone - set(self.uids), reverse=True) if not match[1] else []
            for uid in unknown:  # told by EXISTS only: one of the places before the next UID that is known
                at = next((index for index, other in enumerate(self.uids) if other is not None and other > uid), len(self.uids)) - 1
                assert self.uids[at] is None, f"{uid} vanished, which the client was never told of"
                del self.uids[at]
            self.uids = [uid for uid in self.uids if uid not in gone]
            self.flags = {uid: flags for uid, flags in self.flags.items() if uid not in gone}
        elif match := _FETCH.fullmatch(line):
            self._fetch(int(match[1]), match[2])
        elif match := re.search(rb"\[HIGHESTMODSEQ (\d+)\]", line):
            self.highest = int(match[1])
        elif match := re.search(rb"\[UIDVALIDITY (\d+)\]", line):
            self.uidvalidity = int(match[1])

    def _fetch(self, seq: int, items: bytes) -> None:
        uid = self.uids[seq - 1]
        if match := re.search(rb"UID (\d+)", items):
            assert uid in (None, int(match[1])), f"number {seq} is {uid} for the client, and {int(match[1])} for the server"
            uid = self.uids[seq - 1] = int(match[1])
        if (match := re.search(rb"FLAGS \(([^)]*)\)", items)) and uid is not None:
            self.flags[uid] = frozenset(match[1].split())
        if self.expunges_allowed and (match := re.search(rb"MODSEQ \((\d+)\)", items)):
            # While expunges can't be told, a MODSEQ says nothing of those before it (RFC 7162 §3.2).
            self.highest = max(self.highest, int(match[1]))


class Reader:
    """A client with its mirror."""

    def __init__(self, pod: Pod, *, qresync: bool, idles: bool) -> None:
        self.pod = pod
        self.qresync = qresync
        self.idles = idles
        self.mirror = Mirror()
        self.client: Client

    async def open(self) -> None:
        self.client = await self.pod.login()
        if self.qresync:
            await self.client.ok("ENABLE QRESYNC")
        mirror = self.mirror
        parameters = ""
        if self.qresync and mirror.uidvalidity:
            known = sorted(uid for uid in mirror.uids if uid)
            sample = f" ({','.join(str(known.index(uid) + 1) for uid in known[::3])} {','.join(map(str, known[::3]))})" if known else ""
            set_ = f" {known[0]}:{known[-1]}{sample}" if known else ""
            parameters = f" (QRESYNC ({mirror.uidvalidity} {mirror.highest}{set_}))"
        before = list(mirror.uids)
        assert None not in before
        output = await self.client.ok("SELECT INBOX" + parameters)
        if not parameters:
            mirror.uids = []
        else:
            # The numbering is that of after the VANISHED: what is gone is taken out before the new count is looked at.
            for match in re.finditer(rb"VANISHED \(EARLIER\) (\S+)\r\n", output):
                gone = _numbers(match[1])
                mirror.uids = [uid for uid in before if uid not in gone]
        mirror.hear(re.sub(rb"\* VANISHED \(EARLIER\) \S+\r\n", b"", output))
        await self.catch_up()

    async def command(self, text: str) -> bytes:
        self.mirror.expunges_allowed = text.startswith(("UID", "NOOP", "EXPUNGE", "CHECK", "MOVE", "COPY", "APPEND"))
        output = await self.client.command(text)
        self.mirror.hear(output)
        self.mirror.expunges_allowed = True
        return output

    async def catch_up(self) -> None:
        """Learn the UIDs that only EXISTS has told of."""
        for _ in range(5):
            if None not in self.mirror.uids:
                return
            await self.command("NOOP")  # what is gone, but could not be told yet, has no UID to learn
            if None not in self.mirror.uids:
                return
            first = self.mirror.uids.index(None) + 1
            await self.command(f"FETCH {first}:* (UID FLAGS)")
        raise AssertionError("the UIDs do not come")

    async def check(self, clock: HandClock) -> None:
        """After NOOP the mirror is the folder as the bucket has it."""
        clock.advance(2)
        await self.command("NOOP")
        await self.catch_up()
        await self.command("NOOP")
        account = await self.pod.services.store.open("alice@example.com")
        view = (await account.refresh(0)).folder("INBOX")
        assert view is not None
        assert self.mirror.uids == view.uids().tolist()
        names = [b"\\Seen", b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Draft", *[name.encode() for name in account.view.keywords]]
        for uid, mask in zip(view.uids().tolist(), view.flags().tolist(), strict=True):
            assert self.mirror.flags[uid] == frozenset(name for bit, name in enumerate(names) if mask >> bit & 1), uid
        assert self.mirror.highest <= account.view.seq


async def _step(chance: random.Random, reader: Reader, clock: HandClock) -> None:
    await _work(chance, reader, clock)
    if reader.qresync:
        await reader.catch_up()  # VANISHED names UIDs: a client that wants it so has to know them


async def _work(chance: random.Random, reader: Reader, clock: HandClock) -> None:
    mirror, count = reader.mirror, len(reader.mirror.uids)
    flag = chance.choice(["\\Seen", "\\Flagged", "\\Deleted", "\\Deleted", "$Work", "$Home"])
    mode = chance.choice(["+FLAGS", "-FLAGS", "FLAGS", "+FLAGS.SILENT", "FLAGS.SILENT"])
    pick = chance.randrange(9)
    if pick == 0 or count == 0:
        mirror.hear(await reader.client.append(b"X: 1\r\n\r\n"))
        clock.advance(2)
        await reader.command("NOOP")
    elif pick <= 2:
        low = chance.randint(1, count)
        silent = mode.endswith("SILENT")
        known = [uid for uid in mirror.uids[low - 1 : low + 2] if uid is not None]
        output = await reader.command(f"STORE {low}:{min(low + 2, count)} {mode} ({flag})")
        if silent and b" OK" in output:
            for uid in known:  # .SILENT: the client works it out by itself, unless it was told something
                if not re.search(rb"\(UID %d FLAGS|FETCH \(FLAGS" % uid, output):
                    before = mirror.flags.get(uid, frozenset())
                    one = frozenset({flag.encode()})
                    mirror.flags[uid] = {"+": before | one, "-": before - one}.get(mode[0], one)
    elif pick == 3:
        known = [uid for uid in mirror.uids if uid]
        if known:
            await reader.command(f"UID STORE {chance.choice(known)}:* {mode.removesuffix('.SILENT')} ({flag})")
    elif pick == 4:
        await reader.command("EXPUNGE")
    elif pick == 5:
        await reader.command(f"FETCH {chance.randint(1, count)} (UID FLAGS)")
    elif pick == 6:
        await reader.command("SEARCH RETURN (COUNT) UNSEEN")
    elif pick == 7:
        clock.advance(2)
        await reader.command("NOOP")
    else:
        known = [uid for uid in mirror.uids if uid]
        if known:
            await reader.command(f"UID MOVE {chance.choice(known)} Trash")


@pytest.mark.parametrize("seed", range(25))
async def test_what_is_told_is_what_is_there(seed):
    """A mail program's cache would show mail that is gone, miss mail that came, or put flags on the wrong message."""
    chance = random.Random(seed)
    pods, clock = make_pods()
    readers = [Reader(pods[number % 2], qresync=number >= 2, idles=False) for number in range(4)]
    for reader in readers:
        await reader.open()
    for _ in range(60):
        reader = chance.choice(readers)
        if chance.random() < 0.1:
            # Away for a while; a QRESYNC client takes its cache up again, others start anew.
            await reader.catch_up()  # what a client has no UID of it can't keep
            reader.client.session.connection_lost()
            for _ in range(chance.randrange(6)):
                await _step(chance, chance.choice([other for other in readers if other is not reader]), clock)
            if not reader.qresync:
                reader.mirror = Mirror()
            await reader.open()
        else:
            await _step(chance, reader, clock)
    for reader in readers:
        await reader.check(clock)


@pytest.mark.parametrize("seed", range(8))
async def test_idlers_keep_up(seed):
    """A phone that only ever idles would slowly come to show another folder than the one that is there."""
    chance = random.Random(1000 + seed)
    pods, clock = make_pods()
    idlers = [Reader(pods[number % 2], qresync=number == 1, idles=True) for number in range(3)]
    worker = Reader(pods[0], qresync=False, idles=False)
    for reader in [*idlers, worker]:
        await reader.open()
    for idler in idlers:
        idler.client.send(b"idle IDLE\r\n")
        await idler.client.settle()
        idler.mirror.hear(idler.client.take())
    for _ in range(40):
        await _step(chance, worker, clock)
        for idler in idlers:
            await idler.client.settle()
            idler.mirror.hear(idler.client.take())
    clock.advance(70)  # the other pod asks the bucket
    for idler in idlers:
        await idler.client.settle()
        clock.advance(5)
        await idler.client.settle()
        idler.mirror.hear(await idler.client.raw(b"DONE\r\n"))
    for reader in [*idlers, worker]:
        await reader.catch_up()
        await reader.check(clock)

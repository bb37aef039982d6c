"""The second, plain implementation that the simulation compares the store with reads what the store writes."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mailpod.store import entry as entries
from mailpod.store import numbers, uidset
from mailpod.store import operations as ops
from tests.sim.archive import Archive
from tests.sim.faulty import Bucket
from tests.sim.loop import VirtualLoop
from tests.sim.truth import Contradiction, Replay, Undecodable, body_of, decode_entry, number_list, uid_list

COMMIT = bytes(range(16))
FOLDERS = (ops.FolderSpec(1, "INBOX", "", 100), ops.FolderSpec(2, "Trash", "\\Trash", 101))


def encoded(seq: int, operations: list[ops.Operation], bodies: list[bytes] = [], previous: bytes = bytes(16)) -> bytes:  # noqa: B006 - read only
    frames = [entries.make_frame(body) for body in bodies]
    summaries = [entries.make_frame(b"summary")] * len(bodies)
    return b"".join(entries.encode(seq, bytes([seq]) * 16, previous, ops.encode(operations), summaries, frames).parts)


@pytest.mark.parametrize("uids", [[7], [1, 2, 3], list(range(5, 400)), [1, 5, 9, 13, 17, 21, 25, 29, 33], [*range(1, 90), 200]])
def test_number_sets_decode(uids: list[int]):
    """A set misread would make the replay expunge other messages than the store."""
    assert uid_list(uidset.pack(np.array(uids, dtype=np.uint32))) == uids
    assert number_list(numbers.pack(uids)) == uids


def test_an_entry_decodes_with_its_bodies():
    """Header, operations and each frame, compressed and not."""
    bodies = [b"short", b"long " * 1000]
    row = ops.Row(0, 5, 5, 0, 21, 0)
    entry = decode_entry(encoded(3, [ops.Appended(1, 1, 1, 9, (row,))], bodies))
    assert entry.seq == 3
    assert entry.operations == [[2, 1, 1, 1, 9, [[0, 5, 5, 0, 21, 0]], []]]
    assert [body_of(entry, number) for number in range(2)] == bodies
    with pytest.raises(Undecodable):
        body_of(entry, 2)


def test_compressed_operations_decode():
    """Long lists of operations are packed."""
    operations: list[ops.Operation] = [ops.Subscribed("folder" * 20, True)] * 100
    assert len(decode_entry(encoded(1, operations)).operations) == 100


def test_any_flipped_bit_of_an_entry_is_noticed():
    """The reckoning must not take damaged bytes for the truth."""
    data = encoded(1, [ops.Subscribed("x", True)], [b"body of a message"])
    whole = decode_entry(data)
    summary = len(data) - len(whole.frames)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 4
        if summary <= position < summary + whole.lengths[0]:
            continue  # summaries are no mail: the store computes them anew
        with pytest.raises(Undecodable):
            body_of(decode_entry(bytes(damaged)), 0)


def test_a_replay_follows_a_small_history():
    """Append, flag, copy, move, expunge: in plain dictionaries."""
    replay = Replay()

    def entry(operations: list[ops.Operation]) -> None:
        replay.apply(decode_entry(encoded(replay.seq + 1, operations)))

    def packed(*uids: int) -> bytes:
        return uidset.pack(np.array(uids, dtype=np.uint32))

    rows = tuple(ops.Row(0, 5, 10, 0, 20, number) for number in range(3))
    entry([ops.Created(FOLDERS)])
    entry([ops.Appended(1, 1, 1, 9, rows)])
    entry([ops.KeywordAdded(5, "todo"), ops.FlagsChanged(1, packed(1, 3), 0, 1 | 32)])
    entry([ops.CopiedOver(1, packed(1), 2, 1, 11, False), ops.CopiedOver(1, packed(2), 2, 2, 11, True)])
    entry([ops.Removed(1, packed(3))])
    inbox, trash = replay.picture().folders
    assert [(message.uid, message.modseq, message.flags) for message in inbox.messages] == [(1, 3, frozenset({"\\Seen", "todo"}))]
    assert [(message.uid, message.modseq, message.email_id) for message in trash.messages] == [(1, 4, 1), (2, 4, 2)]
    assert (inbox.uidnext, inbox.highestmodseq, trash.uidnext, trash.highestmodseq) == (4, 5, 3, 4)
    assert replay.picture().usage_bytes == 30


@pytest.mark.parametrize(
    ("operation", "invariant"),
    [
        (ops.Created(FOLDERS), "1"),
        (ops.Removed(1, uidset.pack(np.array([9], dtype=np.uint32))), "1"),
        (ops.Appended(1, 1, 2, 9, (ops.Row(0, 5, 10, 0, 20, 0),)), "5"),
        (ops.Appended(1, 2, 1, 9, (ops.Row(0, 5, 10, 0, 20, 0),)), "5"),
        (ops.FolderCreated(ops.FolderSpec(3, "Trash", "", 101)), "6"),
        (ops.Applied(0, 4, 0, 0), "13"),
        (ops.Applied(0, 2, 0, 0), "13"),
        (ops.Reclaimed(7, "", b"", (), 0), "10"),
    ],
)
def test_a_replay_names_the_invariant_that_breaks(operation: ops.Operation, invariant: str):
    """A check that could not fail would be none."""
    replay = Replay()
    history: list[list[ops.Operation]] = [
        [ops.Created(FOLDERS)],
        [ops.Appended(1, 1, 1, 9, (ops.Row(0, 5, 10, 0, 20, 0),))],
        [ops.WatermarkMoved(0, 3), ops.Applied(0, 4, 0, 0)],
    ]
    for operations in history:
        replay.apply(decode_entry(encoded(replay.seq + 1, operations)))
    with pytest.raises(Contradiction, match=f"^{invariant}:"):
        replay.apply(decode_entry(encoded(4, [operation])))


class Watched:
    """A bucket with an archive."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.bucket = Bucket(VirtualLoop(), random.Random(1))
        self.archive = Archive(self.bucket, self.failures.append)

    def key(self, seq: int) -> str:
        return f"v1/accounts/example.com/alice/log/{seq:016x}"

    def history(self) -> list[bytes]:
        first = encoded(1, [ops.Created(FOLDERS)])
        second = encoded(2, [ops.Appended(1, 1, 1, 9, (ops.Row(0, 5, 10, 0, 20, 0),))], [b"body"], previous=bytes([1]) * 16)
        third = encoded(3, [ops.Reclaimed(1, "", numbers.pack([2]), (), 0)], previous=bytes([2]) * 16)
        for seq, data in enumerate((first, second, third), 1):
            self.bucket.create("pod", self.key(seq), data)
        return [first, second, third]


def test_an_archive_lets_a_listed_entry_be_emptied():
    """What is right must not be reported."""
    watched = Watched()
    second = watched.history()[1]
    header = entries.read_header(second, 2)
    landing = watched.bucket.last_modified(watched.key(2))
    watched.bucket.put("pod", watched.key(2), entries.emptied(header, second, landing))
    assert watched.failures == []


@pytest.mark.parametrize(
    ("deed", "invariant"),
    [
        ("delete", "10"),
        ("unlisted", "10"),
        ("strip", "10"),
        ("commit", "4"),
        ("filled", "10"),
        ("landing", "15"),
        ("chain", "1"),
        ("gap", "1"),
        ("twice", "3"),
    ],
)
def test_an_archive_reports_each_misdeed_at_once(deed: str, invariant: str):
    """Each of these would lose or double somebody's mail."""
    watched = Watched()
    first, second, third = watched.history()
    bucket, key = watched.bucket, watched.key
    landing = bucket.last_modified(key(1))
    header = entries.read_header(first, 1)
    if deed == "delete":
        bucket.delete("pod", [key(2)])
    elif deed == "unlisted":
        bucket.put("pod", key(1), entries.emptied(header, first, landing))
    elif deed == "strip":
        bucket.put("pod", key(1), entries.stripped(header, landing, 3))
    elif deed == "commit":
        bucket.put("pod", key(1), entries.emptied(header._replace(commit=COMMIT), first, landing))
    elif deed == "filled":
        bucket.put("pod", key(2), second)
    elif deed == "landing":
        bucket.put("pod", key(2), entries.emptied(entries.read_header(second, 2), second, landing + 500))
    elif deed == "chain":
        bucket.create("pod", key(4), encoded(4, [], previous=COMMIT))
    elif deed == "gap":
        bucket.create("pod", key(9), encoded(9, []))
    else:
        bucket.create("pod", key(4), third[:0] + b"".join(entries.encode(4, bytes([2]) * 16, bytes([3]) * 16, b"\x90").parts))
    assert watched.failures
    assert watched.failures[0].startswith(f"{invariant}:")

"""The binary forms: entries, sets of numbers, keys, segments."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.errors import NEWER_FORMAT, Corrupt, Refused
from mailpod.store import entry, keys, numbers, operations, segments, uidset
from mailpod.store.entry import make_frame

COMMIT, PREVIOUS = b"c" * 16, b"p" * 16
OPS = operations.encode([operations.Subscribed("Lists", True), operations.Removed(1, uidset.pack(np.array([3, 4], dtype=np.uint32)))])


def parts_of(data: bytes, seq: int) -> tuple[bytes, list[bytes]]:
    """Everything that a reader takes out of an entry: operations and frames."""
    header = entry.read_header(data, seq)
    ops = entry.read_operations(header, data)
    lengths = entry.read_table(header, data)
    out, offset = [], header.head_bytes
    for number, length in enumerate(lengths):
        half = len(lengths) // 2
        out.append(entry.open_frame(data[offset : offset + length], seq, 2 * number if number < half else 2 * (number - half) + 1))
        offset += length
    if offset != len(data):
        raise Corrupt("length")
    return ops, out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2**63),
    st.binary(max_size=3000),
    st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=3000)), max_size=4),
)
def test_round_trip(seq: int, ops: bytes, messages: list[tuple[bytes, bytes]]):
    """What a pod writes, every pod reads: else mail is lost on the way through the bucket."""
    encoded = entry.encode(seq, COMMIT, PREVIOUS, ops, [make_frame(one) for one, _ in messages], [make_frame(two) for _, two in messages])
    data = b"".join(encoded.parts)
    assert len(data) == encoded.size
    header = entry.read_header(data, seq)
    assert (header.seq, header.commit, header.previous, header.head_bytes) == (seq, COMMIT, PREVIOUS, encoded.head_bytes)
    assert parts_of(data, seq) == (ops, [one for one, _ in messages] + [two for _, two in messages])


@pytest.mark.parametrize("big", [False, True], ids=["plain", "packed"])
def test_every_flipped_bit_is_noticed(big: bool):
    """A bit that rots in the bucket must never be served as mail (invariant 14)."""
    ops = OPS
    raw = b"Subject: x\r\n\r\n" + (b"text " * 60 if big else b"y")
    data = bytearray(b"".join(entry.encode(7, COMMIT, PREVIOUS, ops, [make_frame(b"summary")], [make_frame(raw)]).parts))
    good = parts_of(bytes(data), 7), entry.read_header(bytes(data), 7)
    for bit in range(len(data) * 8):
        data[bit >> 3] ^= 1 << (bit & 7)
        try:
            found = parts_of(bytes(data), 7), entry.read_header(bytes(data), 7)
        except (Corrupt, Refused):
            found = None
        assert found is None or found == good, f"bit {bit} of byte {bit >> 3}"
        data[bit >> 3] ^= 1 << (bit & 7)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 2**32), st.booleans())
def test_decoders_only_ever_say_corrupt(data: bytes, seed: int, mutate: bool):
    """Whatever lies in the bucket, the pod answers NO or 4xx: no traceback, no endless loop."""
    if mutate:
        rng = random.Random(seed)
        changed = bytearray(b"".join(entry.encode(9, COMMIT, PREVIOUS, OPS, [make_frame(b"s")], [make_frame(b"b" * 500)]).parts))
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        data = bytes(changed[: rng.randint(0, len(changed))])
    for decode in (
        lambda: parts_of(data, 9),
        lambda: operations.decode(data),
        lambda: uidset.unpack(data, 10_000),
        lambda: numbers.unpack(data),
        lambda: entry.check_frame(data, 9, 1),
    ):
        with contextlib.suppress(Corrupt, Refused):
            decode()
    segments.decode_footer(data, len(data))


def test_a_frame_in_the_wrong_place_is_noticed():
    """A range read of the wrong entry must not hand out somebody else's message."""
    frame = make_frame(b"secret")
    stored = entry.frame_header(frame, 5, 1) + frame.data
    assert entry.open_frame(stored, 5, 1) == b"secret"
    for seq, index in ((5, 0), (6, 1), (5, 3)):
        with pytest.raises(Corrupt):
            entry.open_frame(stored, seq, index)


def test_newer_format_refuses_and_does_not_quarantine():
    """A pod that was rolled back must not call newer mail corrupt (case 35)."""
    import struct

    from crc32c import crc32c

    data = bytearray(b"".join(entry.encode(3, COMMIT, PREVIOUS, OPS).parts))
    struct.pack_into("<H", data, 4, entry.FORMAT_VERSION + 1)
    struct.pack_into("<I", data, entry.HEADER_BYTES - 4, crc32c(bytes(data[: entry.HEADER_BYTES - 4])))
    with pytest.raises(Refused) as caught:
        entry.read_header(bytes(data), 3)
    assert caught.value.reason is NEWER_FORMAT


def test_emptied_and_stripped_keep_identity_and_landing_time():
    """A number's commit id never changes (invariant 4), and when it landed is not forgotten with the bodies."""
    data = b"".join(entry.encode(4, COMMIT, PREVIOUS, OPS, [make_frame(b"s")], [make_frame(b"b" * 1000)]).parts)
    header = entry.read_header(data, 4)
    emptied = entry.emptied(header, data, 123.5)
    after = entry.read_header(emptied, 4)
    assert len(emptied) == header.head_bytes
    assert entry.read_operations(after, emptied) == OPS
    assert (after.commit, after.previous, after.landing, after.frames_bytes) == (COMMIT, PREVIOUS, 123.5, header.frames_bytes)
    bare = entry.read_header(entry.stripped(after, 123.5, 99), 4)
    assert (bare.commit, bare.previous, bare.landing, bare.erased_by, bare.operations_stored) == (COMMIT, PREVIOUS, 123.5, 99, 0)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(1, 2**32 - 1), max_size=60), st.integers(0, 300))
def test_uid_sets_round_trip(some: set[int], run: int):
    """An expunge of a run, of scattered messages, of both."""
    uids = np.array(sorted(some | set(range(1000, 1000 + run))), dtype=np.uint32)
    assert np.array_equal(uidset.unpack(uidset.pack(uids)), uids)
    assert numbers.unpack(numbers.pack(uids.tolist())).tolist() == uids.tolist()


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
@pytest.mark.case(22)
def test_no_address_reaches_another_tenants_key(local: str, domain: str):
    """`../`, NUL, slashes in an address: a key of its own, or a refusal."""
    domain = domain.replace("@", "")
    try:
        name = keys.account_name(f"{local}@{domain}")
    except (Refused, UnicodeEncodeError):
        return
    parts = name.split("/")
    assert len(parts) == 3
    assert parts[0] == "accounts"
    assert not any(part in ("", ".", "..") for part in parts)
    assert name.isascii()
    assert keys.address_of(name) == f"{local}@{domain}"
    assert keys.Keys("x").name_of(keys.Keys("x").log(name).entry(5)) == name


def test_snapshots_list_newest_first():
    """LIST with one row must find the newest snapshot: a cold open depends on it."""
    log = keys.Keys("p").log("accounts/example.com/bob")
    names = [log.snapshot(seq) for seq in (1, 5, 2**40)]
    assert sorted(names) == names[::-1]
    assert [log.snapshot_seq(name) for name in names] == [1, 5, 2**40]
    assert log.entry_seq(log.entry(77)) == 77
    with pytest.raises(ValueError, match="numbered"):
        log.entry_seq(log.root + "log/xyz")


def test_segments_round_trip_and_notice_damage():
    """Summaries are derived: a damaged segment yields nothing, never something wrong."""
    rows = [(number * 2, f"summary {number}".encode()) for number in range(1, 700)]
    data = segments.encode(rows)
    groups = segments.decode_footer(data, len(data))
    assert groups is not None
    found: dict[int, bytes] = {}
    for group in groups:
        found.update(segments.decode_group(data[group.offset : group.offset + group.length], group))
    assert found == dict(rows)
    broken = bytearray(data)
    broken[groups[0].offset + 5] ^= 1
    assert segments.decode_group(bytes(broken[groups[0].offset : groups[0].offset + groups[0].length]), groups[0]) == {}
    broken[-20] ^= 1
    assert segments.decode_footer(bytes(broken), len(data)) is None


def test_cheap_import():
    """The package's façade imports no vendor library (obstore, boto3, aiohttp)."""
    import subprocess
    import sys

    code = "import mailpod.store, sys; print([m for m in ('obstore','boto3','aiohttp','aiosmtpd') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

"""Sequence sets against a plain model of what RFC 9051 says."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits.imap import SET_RANGES_MAX
from mailpod.protocol.imap.sequence_set import NUMBER_MAX, OutOfRange, SequenceSet, encode_numbers

Item = tuple[int | None, int | None]

numbers = st.one_of(st.none(), st.integers(1, 40), st.integers(1, NUMBER_MAX))
items = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20)
columns = st.lists(st.one_of(st.integers(1, 60), st.integers(1, NUMBER_MAX)), unique=True, max_size=50).map(sorted)


def written(given_items: list[Item]) -> bytes:
    def one(number: int | None) -> str:
        return "*" if number is None else str(number)

    return ",".join(one(low) if low == high else f"{one(low)}:{one(high)}" for low, high in given_items).encode()


def holds(given_items: list[Item], number: int, largest: int) -> bool:
    for pair in given_items:
        ends = [largest if end is None else end for end in pair]
        if min(ends) <= number <= max(ends):
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(items, columns)
def test_uids_and_rows_agree_with_the_model(given_items, column):
    """A set that takes in one message too many deletes somebody's mail."""
    parsed = SequenceSet.parse(written(given_items))
    uids = np.array(column, np.uint32)
    expected = [row for row, uid in enumerate(column) if holds(given_items, uid, column[-1])]
    assert parsed.rows_of_uids(uids).tolist() == expected
    assert np.flatnonzero(parsed.mask(uids)).tolist() == expected
    assert parsed.rows_of_uids(uids).dtype == np.int64


@settings(max_examples=150, deadline=None)
@given(items, st.integers(0, 60))
def test_sequence_numbers_agree_with_the_model(given_items, count):
    """Numbers beyond the mailbox are the client's mistake and must be told as one, not cut off."""
    parsed = SequenceSet.parse(written(given_items))
    ends = [end for pair in given_items for end in pair if end is not None]
    if any(end > count for end in ends):
        with pytest.raises(OutOfRange):
            parsed.rows_of_sequence(count)
    else:
        assert parsed.rows_of_sequence(count).tolist() == [row for row in range(count) if holds(given_items, row + 1, count)]


@settings(max_examples=100, deadline=None)
@given(items)
def test_encode_is_read_back(given_items):
    """Logs and tests show sets in their wire form."""
    parsed = SequenceSet.parse(written(given_items))
    assert SequenceSet.parse(parsed.encode()) == parsed
    assert hash(SequenceSet.parse(parsed.encode())) == hash(parsed)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text("0123456789*:,$ ", max_size=40).map(str.encode)))
def test_any_bytes_are_a_set_or_a_value_error(text):
    """Whatever a client sends, the parser must not fail in its own way."""
    try:
        parsed = SequenceSet.parse(text)
    except ValueError:
        return
    assert set(text) <= set(b"0123456789*:,$")
    assert SequenceSet.parse(parsed.encode()) == parsed


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b",",
        b"1,",
        b",1",
        b"0",
        b"01",
        b"1:",
        b":1",
        b"1:2:3",
        b"1 2",
        b"-1",
        b"+1",
        b"1.5",
        b"1e3",
        b"**",
        b"*1",
        b"$1",
        b"1,$",
        b"4294967296",
        b"1099511627776",
        b"9999999999",
        b"10000000000",
        b"1:4294967296",
        b"\xb2",
        b"1\n",
        b"0x1",
        b"1_0",
    ],
)
def test_what_is_no_set(text):
    """A set that is read as another one is worse than one that is refused."""
    with pytest.raises(ValueError):
        SequenceSet.parse(text)


def test_largest_number_and_star():
    """UID 4294967295 exists; "*" is the last message, whatever its number."""
    uids = np.array([5, 4294967295], np.uint32)
    assert SequenceSet.parse(b"4294967295").rows_of_uids(uids).tolist() == [1]
    assert SequenceSet.parse(b"*").rows_of_uids(uids).tolist() == [1]
    assert SequenceSet.parse(b"6:*").rows_of_uids(np.array([3, 5], np.uint32)).tolist() == [1], "RFC 9051 §6.4.9: 6:* holds the last"
    assert SequenceSet.parse(b"1:*").rows_of_uids(np.array([], np.uint32)).tolist() == []
    assert SequenceSet.parse(b"*").rows_of_sequence(0).tolist() == []


def test_mask_with_a_given_largest():
    """Of vanished UIDs, "*" is not the last of them but of the mailbox (RFC 7162 §3.2.6)."""
    vanished = np.array([2, 9], np.uint32)
    assert SequenceSet.parse(b"5:*").mask(vanished, largest=20).tolist() == [False, True]
    assert SequenceSet.parse(b"*").mask(vanished, largest=20).tolist() == [False, False]
    assert SequenceSet.parse(b"10:*").mask(vanished, largest=5).tolist() == [False, True]


def test_saved_set():
    """`$` has no numbers of its own."""
    parsed = SequenceSet.parse(b"$")
    assert parsed.saved
    assert parsed.encode() == b"$"
    assert parsed.rows_of_uids(np.array([1], np.uint32)).tolist() == []
    assert parsed != SequenceSet.parse(b"1")


def test_numbers_in_their_order_and_bounded():
    """QRESYNC pairs sequence numbers with UIDs by position; a range of 4 billion is not expanded."""
    assert SequenceSet.parse(b"7,1:3").numbers(4).tolist() == [7, 1, 2, 3]
    for text in (b"1:5", b"1:4294967295", b"1:*"):
        with pytest.raises(ValueError):
            SequenceSet.parse(text).numbers(4)


@pytest.mark.case(12)
def test_number_of_ranges_is_bounded():
    """Ranges cost memory many times their text."""
    assert len(SequenceSet.parse(b",".join([b"1"] * SET_RANGES_MAX)).ranges) == SET_RANGES_MAX
    with pytest.raises(ValueError):
        SequenceSet.parse(b",".join([b"1"] * (SET_RANGES_MAX + 1)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 300), unique=True, max_size=250).map(sorted), st.sampled_from([np.uint32, np.int64, np.uint64]))
def test_numbers_written_compactly_are_read_back(column, kind):
    """COPYUID, VANISHED and ESEARCH tell the client which messages; one wrong number loses one."""
    text = encode_numbers(np.array(column, kind))
    if not column:
        assert text == b""
        return
    assert SequenceSet.parse(text).numbers(1000).tolist() == column
    gaps = sum(1 for low, high in pairwise(column) if high != low + 1)
    assert text.count(b",") == gaps, "shortest"


def test_order_is_kept():
    """COPYUID's two sets correspond by position (RFC 4315 §3)."""
    assert encode_numbers(np.array([7, 8, 3, 4, 5, 1], np.uint32)) == b"7:8,3:5,1"
    many = np.arange(1000, 0, -2).astype(np.uint32)
    assert encode_numbers(many).split(b",")[:3] == [b"1000", b"998", b"996"]

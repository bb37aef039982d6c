"""The column renderer against one line at a time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits.imap import RENDER_BYTES, RENDER_ROWS
from mailpod.protocol.imap import render, responses
from mailpod.protocol.imap.cells import number_cells

NAMES = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", *(f"$keyword{number}" for number in range(59))]


def names_of(mask: int) -> list[str]:
    return [name for bit, name in enumerate(NAMES) if mask >> bit & 1]


masks = st.one_of(st.just(0), st.integers(0, 31), st.integers(0, 2**64 - 1))
rows = st.lists(
    st.tuples(
        st.integers(1, 2**31),  # seq
        st.integers(1, 2**32 - 1),  # uid
        masks,
        st.integers(1, 2**63 - 1),  # modseq
        st.integers(0, 2**32 - 1),  # size
        st.integers(-(10**9), 10**10),  # date
        st.binary(max_size=20),
    ),
    min_size=1,
    max_size=12,
)


def column(table: list[tuple[Any, ...]], place: int, kind: type) -> Any:
    return np.array([row[place] for row in table], kind)


@settings(max_examples=150, deadline=None)
@given(rows)
def test_every_column_agrees_with_single_lines(table):
    """A client that gets one wrong digit among 100,000 lines shows the wrong flags, or fetches the wrong message."""
    values = [row[6] for row in table]
    blob = b"".join(values)
    offsets = np.concatenate(([0], np.cumsum([len(value) for value in values]))).astype(np.int64)
    seqs = column(table, 0, np.int64)
    columns: list[render.Column] = [
        render.UidColumn(column(table, 1, np.uint32)),
        render.BlobValues(b"ENVELOPE", blob, offsets),
        render.FlagsColumn(column(table, 2, np.uint64), NAMES),
        render.ModseqColumn(column(table, 3, np.uint64)),
        render.SizeColumn(column(table, 4, np.uint32)),
        render.ValueColumn(b"", values),
        render.DateColumn(column(table, 5, np.int64)),
    ]
    expected = [
        responses.fetch_line(
            seq,
            [
                responses.item_uid(uid),
                responses.item_raw(b"ENVELOPE", value),
                responses.item_flags(names_of(mask)),
                responses.item_modseq(modseq),
                responses.item_size(size),
                value,
                responses.item_internaldate(date),
            ],
        )
        for seq, uid, mask, modseq, size, date, value in table
    ]
    assert b"".join(render.render_fetch(seqs, columns)) == b"".join(expected)


@settings(max_examples=100, deadline=None)
@given(rows, st.booleans(), st.booleans())
def test_flags(table, with_uid, with_modseq):
    """FETCH FLAGS, STORE and changes by others all come from here."""
    lines = b"".join(
        render.render_flags(
            column(table, 0, np.int64),
            column(table, 1, np.uint32) if with_uid else None,
            column(table, 2, np.uint64),
            NAMES,
            column(table, 3, np.uint64) if with_modseq else None,
        )
    )
    expected = b"".join(
        responses.fetch_line(
            row[0],
            [
                *([responses.item_uid(row[1])] if with_uid else []),
                responses.item_flags(names_of(row[2])),
                *([responses.item_modseq(row[3])] if with_modseq else []),
            ],
        )
        for row in table
    )
    assert lines == expected


@pytest.mark.parametrize(
    "edge", [1, 9, 10, 9999, 10_000, 10_001, 99_999_999, 100_000_000, 2**32 - 1, 2**32, 10**12, 10**16, 2**63 - 1, 2**64 - 1]
)
def test_numbers_at_the_edges_of_their_cells(edge):
    """Zeros within a number must not be lost with the padding."""
    numbers = np.array([edge, 1, 10, edge], np.uint64)
    assert number_cells(numbers).tobytes().translate(None, b"\0") == f"{edge}110{edge}".encode()


def test_expunge_counts_down():
    """RFC 9051 §7.5.1: each number already counts without those told before."""
    assert b"".join(render.render_expunge(np.array([0, 1, 4, 6]))) == b"* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n* 3 EXPUNGE\r\n* 4 EXPUNGE\r\n"
    assert list(render.render_expunge(np.array([], np.int64))) == []


def test_expunge_of_many_is_what_a_client_ends_up_with():
    """A client that removes other messages than the server did shows the wrong mail from then on."""
    count = 3 * RENDER_ROWS
    gone = np.flatnonzero(np.arange(count) % 3 == 1)
    client = list(range(count))
    for line in b"".join(render.render_expunge(gone)).split(b"\r\n")[:-1]:
        del client[int(line.split()[1]) - 1]
    assert client == [row for row in range(count) if row % 3 != 1]


def test_chunks_are_whole_lines_of_bounded_size():
    """Between chunks a slow client is waited for; half a line there could be followed by anything."""
    count = 2 * RENDER_ROWS + 1
    seqs = np.arange(1, count + 1)
    chunks = list(render.render_flags(seqs, seqs.astype(np.uint32), np.zeros(count, np.uint64), NAMES))
    assert [chunk.count(b"\r\n") for chunk in chunks] == [RENDER_ROWS, RENDER_ROWS, 1]
    assert all(chunk.endswith(b")\r\n") for chunk in chunks)


def test_large_values_make_small_chunks():
    """A thousand envelopes of 100 KB must not be one buffer of 100 MB."""
    values = [b"v" * 100_000] * 50
    chunks = list(render.render_fetch(np.arange(1, 51), [render.ValueColumn(b"ENVELOPE", values)]))
    assert max(map(len, chunks)) <= RENDER_BYTES + 100_000
    assert b"".join(chunks) == b"".join(responses.fetch_line(seq, [b"ENVELOPE " + values[0]]) for seq in range(1, 51))
    huge = list(render.render_fetch(np.arange(1, 3), [render.ValueColumn(b"X", [b"v" * (RENDER_BYTES * 2)] * 2)]))
    assert len(huge) == 2


def test_one_message_with_very_long_keywords():
    """Rows are as wide as the longest flag list: 59 keywords of 255 bytes on one message must not widen 4,096 rows."""
    names = [*NAMES[:5], *(f"k{number:02d}" + "x" * 250 for number in range(59))]
    flags = np.zeros(RENDER_ROWS, np.uint64)
    flags[100] = 2**64 - 1
    chunks = list(render.render_flags(np.arange(1, RENDER_ROWS + 1), None, flags, names))
    lines = b"".join(chunks).split(b"\r\n")
    assert lines[100] == b"* 101 FETCH (FLAGS (" + " ".join(names).encode() + b"))"
    assert lines[99] == b"* 100 FETCH (FLAGS ())"
    assert len(lines) == RENDER_ROWS + 1
    assert max(map(len, chunks)) < 4 * RENDER_BYTES


def test_rows_of_a_blob():
    """FETCH of some messages takes their values out of the whole folder's."""
    offsets = np.array([0, 1, 3, 6])
    made = b"".join(render.render_fetch(np.array([3, 1]), [render.BlobValues(b"E", b"abbccc", offsets, np.array([2, 0]))]))
    assert made == b"* 3 FETCH (E ccc)\r\n* 1 FETCH (E a)\r\n"


def test_no_messages():
    """FETCH of nothing answers with nothing."""
    nothing = np.array([], np.int64)
    assert list(render.render_fetch(nothing, [render.UidColumn(nothing.astype(np.uint32))])) == []
    assert list(render.render_fetch(nothing, [render.ValueColumn(b"E", [])])) == []


def test_search_numbers():
    """A long SEARCH answer."""
    assert responses.search(np.arange(1, 10_001)) == b"* SEARCH " + " ".join(map(str, range(1, 10_001))).encode() + b"\r\n"


def test_dates_far_apart():
    """One message from 1970 among today's."""
    seconds = np.array([-(10**10), 0, 10**11])
    made = b"".join(render.render_fetch(np.arange(1, 4), [render.DateColumn(seconds, b"SAVEDATE")]))
    assert made == b"".join(responses.fetch_line(seq, [responses.item_savedate(int(value))]) for seq, value in enumerate(seconds, 1))

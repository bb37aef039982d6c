"""THREAD=REFERENCES and ORDEREDSUBJECT (RFC 5256 §3)."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.message.threading import Columns, render_forest, thread_ids, thread_orderedsubject, thread_references

Row = tuple[str, list[str], str, bool, int]  # id, references, base subject, is reply, date


def _columns(messages: Sequence[Row]) -> Columns:
    return Columns(
        [one[0] for one in messages],
        [one[1] for one in messages],
        [one[2] for one in messages],
        [one[3] for one in messages],
        [one[4] for one in messages],
    )


def _references(*messages: Row, numbers: Sequence[int] | None = None) -> bytes:
    """Messages as (id, references, base subject, is reply, date)."""
    return render_forest(thread_references(_columns(messages)), numbers or range(1, len(messages) + 1))


def _message(name: str, references: str = "", subject: str | None = None, reply: bool = False, date: int | None = None) -> Row:
    return name, references.split(), name if subject is None else subject, reply, ord(name[0]) if date is None else date


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], b""),
        ([_message("a")], b"(1)"),
        ([_message("a"), _message("b")], b"(1)(2)"),
        ([_message("a"), _message("b", "a"), _message("c", "a b")], b"(1 2 3)"),
        ([_message("a"), _message("b", "a"), _message("c", "a")], b"(1 (2)(3))"),
        ([_message("a"), _message("b", "a"), _message("c", "a b"), _message("d", "a")], b"(1 (2 3)(4))"),
        # the parent is not there: brothers under nothing; alone it takes the missing one's place
        ([_message("b", "x"), _message("c", "x")], b"((1)(2))"),
        ([_message("b", "x")], b"(1)"),
        ([_message("b", "x y"), _message("c", "x z")], b"((1)(2))"),
        ([_message("a"), _message("b", "a x y"), _message("c", "a x")], b"(1 (2)(3))"),
        # order of arrival does not matter, dates do
        ([_message("c", "a b", date=3), _message("b", "a", date=2), _message("a", date=1)], b"(3 2 1)"),
        ([_message("a", date=9), _message("b", "a", date=5), _message("c", "a", date=4)], b"(1 (3)(2))"),
        # 1.B: no references of its own, so what an earlier message said of its parent does not count; a later one may say it again
        ([_message("a"), _message("c", "a b"), _message("b")], b"(1)(3 2)"),
        ([_message("a"), _message("b"), _message("c", "a b")], b"(1 2 3)"),
        ([_message("c", "a b"), _message("b", "x"), _message("a")], b"(3)(2 1)"),
        # loops
        ([_message("a", "a")], b"(1)"),
        ([_message("a", "b"), _message("b", "a")], b"(2 1)"),
        ([_message("a", "c"), _message("b", "a"), _message("c", "b")], b"(3 1 2)"),
        # the same id twice: two messages
        ([_message("a"), _message("a", date=1), _message("b", "a")], b"(2)(1 3)"),
        ([("", [], "s1", False, 1), ("", [], "s2", False, 2)], b"(1)(2)"),
    ],
)
def test_references(messages, expected):
    """Steps 1 to 4 and 6: conversations as their references say."""
    messages = [(name, refs, subject + str(index), reply, date) for index, (name, refs, subject, reply, date) in enumerate(messages)]
    assert _references(*messages) == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([_message("a", subject="s"), _message("b", subject="s", reply=True)], b"(1 2)"),
        ([_message("a", subject="s"), _message("b", subject="s")], b"((1)(2))"),
        ([_message("a", subject="s", reply=True), _message("b", subject="s")], b"(2 1)"),
        ([_message("a", subject="s", reply=True), _message("b", subject="s", reply=True)], b"((1)(2))"),
        ([_message("a", subject="s"), _message("b", subject="s"), _message("c", subject="s")], b"((1)(2)(3))"),
        ([_message("a", "x", subject="s"), _message("b", "x", subject="s"), _message("c", subject="s")], b"((1)(2)(3))"),
        (
            [
                _message("a", "x", subject="s"),
                _message("b", "x", subject="s"),
                _message("c", "y", subject="s"),
                _message("d", "y", subject="s"),
            ],
            b"((1)(2)(3)(4))",
        ),
        ([_message("a", subject=""), _message("b", subject="", reply=True)], b"(1)(2)"),
        ([_message("c", subject="s", reply=True), _message("a", subject="s"), _message("b", "a", subject="s", reply=True)], b"(2 (3)(1))"),
    ],
)
def test_references_gather_subjects(messages, expected):
    """Step 5: replies of programs that send no references join by their subject."""
    assert _references(*messages) == expected


def test_rfc_example_shape():
    """RFC 5256 §4: `(2)(3 6 (4 23)(44 7 96))`."""
    messages = [
        _message("q", subject="z2", date=1),
        _message("a", subject="z", date=2),
        _message("b", "a", date=3),
        _message("c", "b", date=4),
        _message("d", "c", date=5),
        _message("e", "b", date=6),
        _message("f", "e", date=7),
        _message("g", "f", date=8),
    ]
    assert _references(*messages, numbers=[2, 3, 6, 4, 23, 44, 7, 96]) == b"(2)(3 6 (4 23)(44 7 96))"


def test_orderedsubject():
    """One thread a subject, oldest first, the rest side by side below it; threads by their oldest."""
    forest = thread_orderedsubject(["b", "a", "b", "c", "b"], [5, 2, 4, 3, 6])
    assert render_forest(forest, [10, 11, 12, 13, 14]) == b"(11)(13)(12 (10)(14))"
    assert render_forest(thread_orderedsubject(["s", "s"], [1, 1]), [1, 2]) == b"(1 2)"
    assert render_forest(thread_orderedsubject([], []), []) == b""


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "c", "d", "e"]),
            st.lists(st.sampled_from(["a", "b", "c", "d", "e", "x", "y"]), max_size=5),
            st.sampled_from(["", "s", "t"]),
            st.booleans(),
            st.integers(0, 5),
        ),
        max_size=12,
    )
)
def test_every_message_exactly_once(messages):
    """Whatever the references are, THREAD shows each message once, in balanced brackets."""
    shown = _references(*messages)
    numbers = [int(number) for number in shown.replace(b"(", b" ").replace(b")", b" ").split()]
    assert sorted(numbers) == list(range(1, len(messages) + 1))
    depth = 0
    for byte in shown:
        depth += {40: 1, 41: -1}.get(byte, 0)
        assert depth >= 0
    assert depth == 0
    assert b"()" not in shown
    assert sorted(message for message, _ in thread_ids(thread_references(_columns(messages)))) == list(range(len(messages)))


@pytest.mark.case(12)
@pytest.mark.parametrize("shape", ["chain", "all-to-all", "one-subject", "missing-chains"])
def test_hundred_thousand(shape):
    """100,000 messages with references made to hurt: seconds, no recursion, every message there."""
    count = 100_000
    ids = [f"m{n}" for n in range(count)]
    shapes: dict[str, list[list[str]]] = {
        "chain": [[f"m{n - 1}"] if n else [] for n in range(count)],
        "all-to-all": [[f"m{(n * 7919 + k * 104729) % count}" for k in range(5)] for n in range(count)],
        "one-subject": [[] for _ in range(count)],
        "missing-chains": [[f"x{n % 50_000 + k}" for k in range(5)] for n in range(count)],
    }
    references = shapes[shape]
    subjects = ["same"] * count if shape == "one-subject" else [str(n % 1000) for n in range(count)]
    start = time.process_time()
    forest = thread_references(
        Columns(ids, references, subjects, [n % 2 == 0 for n in range(count)], [n * 7919 % count for n in range(count)])
    )
    shown = render_forest(forest, range(1, count + 1))
    assert time.process_time() - start < 5
    assert len(set(shown.replace(b"(", b" ").replace(b")", b" ").split())) == count

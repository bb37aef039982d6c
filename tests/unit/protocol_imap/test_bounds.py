"""Every list and string in the grammar has an end, and small rules that transcripts do not reach."""

from collections.abc import Callable

import pytest

from mailpod.limits import imap as limits
from mailpod.protocol.imap import search_keys as keys
from mailpod.protocol.imap.reader import Reader
from mailpod.protocol.imap.sequence_set import SequenceSet
from mailpod.protocol.imap.states import State


def parse(text: str, state: State = State.SELECTED):
    made = Reader()
    made.state = state
    made.feed(b"a " + text.encode() + b"\r\n")
    event = made.next_event()
    assert made.next_event() is None
    return event


def repeated(item: str, count: int) -> str:
    return " ".join([item] * count)


BOUNDED: dict[str, tuple[Callable[[int], str], int]] = {
    "id-pairs": (lambda n: "ID (" + repeated('"a" "b"', n) + ")", limits.ID_PAIRS_MAX),
    "id-field": (lambda n: f'ID ("{"f" * n}" NIL)', limits.ID_FIELD_BYTES_MAX),
    "id-value": (lambda n: f'ID ("f" "{"v" * n}")', limits.ID_VALUE_BYTES_MAX),
    "enable": (lambda n: f"ENABLE {repeated('X', n)}", limits.ENABLE_MAX),
    "mailbox": (lambda n: f"SELECT {'m' * n}", limits.MAILBOX_BYTES_MAX),
    "status": (lambda n: f"STATUS INBOX ({repeated('MESSAGES', n)})", limits.STATUS_ITEMS_MAX),
    "patterns": (lambda n: "LIST x (" + repeated("x", n) + ")", limits.LIST_PATTERNS_MAX),
    "quota": (lambda n: "SETQUOTA x (" + repeated("STORAGE 1", n) + ")", limits.QUOTA_RESOURCES_MAX),
    "flags": (lambda n: f"STORE 1 FLAGS ({repeated('x', n)})", limits.FLAGS_MAX),
    "bare-flags": (lambda n: f"STORE 1 FLAGS {repeated('x', n)}", limits.FLAGS_MAX),
    "keyword": (lambda n: f"STORE 1 FLAGS ({'k' * n})", limits.FLAG_BYTES_MAX),
    "items": (lambda n: f"FETCH 1 ({repeated('UID', n)})", limits.FETCH_ITEMS_MAX),
    "fields": (lambda n: f"FETCH 1 BODY[HEADER.FIELDS ({repeated('x', n)})]", limits.HEADER_FIELDS_MAX),
    "field": (lambda n: f"FETCH 1 BODY[HEADER.FIELDS ({'x' * n})]", limits.HEADER_FIELD_BYTES_MAX),
    "section": (lambda n: f"FETCH 1 BODY[{'.'.join(['1'] * n)}]", limits.SECTION_DEPTH_MAX),
    "search-nodes": (lambda n: f"SEARCH {repeated('ALL', n)}", limits.SEARCH_NODES_MAX),
    "search-depth": (lambda n: f"SEARCH {'(' * (n - 1)}ALL{')' * (n - 1)}", limits.SEARCH_DEPTH_MAX),
    "search-not": (lambda n: f"SEARCH {'NOT ' * (n - 1)}ALL", limits.SEARCH_DEPTH_MAX),
    "search-text": (lambda n: f"SEARCH TEXT {'x' * n}", limits.SEARCH_TEXT_BYTES_MAX),
    "sort": (lambda n: f"SORT ({repeated('DATE', n)}) UTF-8 ALL", limits.SORT_CRITERIA_MAX),
    "set": (lambda n: f"FETCH {','.join(['1'] * n)} UID", limits.SET_RANGES_MAX),
}


@pytest.mark.case(5)
@pytest.mark.parametrize("name", BOUNDED)
def test_just_so_much_and_no_more(name):
    """What is not bounded is somebody's way to fill the pod's memory; what is bounded too tightly is a client that fails."""
    write, most = BOUNDED[name]
    assert hasattr(parse(write(most)), "body")
    refused = parse(write(most + 1))
    assert refused.status == "BAD"
    assert refused.tag == "a"


@pytest.mark.parametrize(
    "text",
    [
        'LIST "" * STATUS',
        "CREATE x (USE (Sent))",
        "STORE 1 X-FLAGS ()",
        "FETCH 1 FLAGS (COLOUR)",
        "UID FETCH 1 FLAGS (CHANGEDSINCE 1 CHANGEDSINCE 2)",
        "SELECT INBOX (QRESYNC (1 1 $))",
        "FETCH 99999999999999999999 UID",
        "SEARCH LARGER 999999999999999999999999",
        "ID (name NIL)",
        'ID ("name" x)',
        'FETCH 1 "UID"',
        "SEARCH SINCE {1}",
    ],
)
def test_refused(text):
    """None of these may be taken for something else."""
    event = parse(text)
    assert not hasattr(event, "body")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SEARCH MODSEQ 5", True),
        ("SEARCH OR SEEN NOT (FROM a MODSEQ 5)", True),
        ("SEARCH OR MODSEQ 5 SEEN", True),
        ("SEARCH OR SEEN NOT (FROM a TO b)", False),
    ],
)
def test_a_modseq_key_is_found_anywhere(text, found):
    """Then the answer carries the highest MODSEQ, and the session becomes CONDSTORE-aware (RFC 7162 §3.1.5)."""
    assert keys.uses_modseq(parse(text).body.key) is found


def test_a_command_shows_its_set():
    """Logs and failing tests name the messages."""
    assert "SequenceSet('1:3,*')" in repr(parse("COPY 1:3,* x").body)
    assert SequenceSet.parse(b"1:3,*").has_star
    assert not SequenceSet.parse(b"1:3").has_star


def test_commands_compare_and_hash_by_value():
    """The session may keep them in sets, and tests compare them."""
    assert parse("FETCH 1:2 (UID BODY[])").body == parse("fetch 2:1 (uid body[])").body
    assert hash(parse("SEARCH 1:2").body) == hash(parse("SEARCH 1:2").body)

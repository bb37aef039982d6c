"""Every kind of answer, byte for byte; strings are read back by the tokenizer."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailpod.protocol.imap import responses
from mailpod.protocol.imap.tokenizer import Cursor


def nums(*values: int) -> np.ndarray:
    return np.array(values, np.uint32)


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (responses.tagged("a1", "OK", "Done"), b"a1 OK Done\r\n"),
        (responses.tagged("a1", "NO", "Full", "OVERQUOTA"), b"a1 NO [OVERQUOTA] Full\r\n"),
        (
            responses.untagged("OK", "Ready", responses.code_capability(["IMAP4rev1", "IDLE"])),
            b"* OK [CAPABILITY IMAP4rev1 IDLE] Ready\r\n",
        ),
        (responses.bye("Gone", "UNAVAILABLE"), b"* BYE [UNAVAILABLE] Gone\r\n"),
        (responses.continuation(), b"+ OK\r\n"),
        (responses.continuation("idling"), b"+ idling\r\n"),
        (responses.capability(["IMAP4rev1"]), b"* CAPABILITY IMAP4rev1\r\n"),
        (responses.enabled(["CONDSTORE"]), b"* ENABLED CONDSTORE\r\n"),
        (responses.enabled([]), b"* ENABLED\r\n"),
        (responses.id_(None), b"* ID NIL\r\n"),
        (responses.id_({"name": "Postroom", "os": None}), b'* ID ("name" "Postroom" "os" NIL)\r\n'),
        (responses.namespace("", "/"), b'* NAMESPACE (("" "/")) NIL NIL\r\n'),
        (responses.list_(["\\HasNoChildren"], "/", "INBOX", False), b'* LIST (\\HasNoChildren) "/" INBOX\r\n'),
        (responses.list_([], None, "a b", False), b'* LIST () NIL "a b"\r\n'),
        (responses.list_([], "\\", "é", False), b'* LIST () "\\\\" &AOk-\r\n'),
        (responses.list_([], "/", "é", True), b'* LIST () "/" "\xc3\xa9"\r\n'),
        (responses.list_([], "/", 'a"b\\', False), b'* LIST () "/" "a\\"b\\\\"\r\n'),
        (responses.list_([], "/", "x", False, childinfo=["SUBSCRIBED"]), b'* LIST () "/" x ("CHILDINFO" ("SUBSCRIBED"))\r\n'),
        (responses.list_([], "/", "x", True, oldname="y"), b'* LIST () "/" x ("OLDNAME" (y))\r\n'),
        (responses.list_separator("/"), b'* LIST (\\Noselect) "/" ""\r\n'),
        (responses.lsub(["\\Noselect"], "/", "a%", False), b'* LSUB (\\Noselect) "/" "a%"\r\n'),
        (
            responses.status("NIL", [("MESSAGES", 3), ("MAILBOXID", "F1"), ("APPENDLIMIT", None)], False),
            b'* STATUS "NIL" (MESSAGES 3 MAILBOXID (F1) APPENDLIMIT NIL)\r\n',
        ),
        (responses.flags(["\\Seen", "x"]), b"* FLAGS (\\Seen x)\r\n"),
        (responses.exists(23), b"* 23 EXISTS\r\n"),
        (responses.recent(0), b"* 0 RECENT\r\n"),
        (responses.vanished(nums(1, 2, 3, 9)), b"* VANISHED 1:3,9\r\n"),
        (responses.vanished(nums(5), earlier=True), b"* VANISHED (EARLIER) 5\r\n"),
        (responses.vanished(nums()), b""),
        (responses.quota("", [("STORAGE", 10, 512), ("MESSAGE", 1, 20)]), b'* QUOTA "" (STORAGE 10 512 MESSAGE 1 20)\r\n'),
        (responses.quotaroot("INBOX", [""], False), b'* QUOTAROOT INBOX ""\r\n'),
        (responses.search(nums(2, 84, 882)), b"* SEARCH 2 84 882\r\n"),
        (responses.search(nums(2), 917), b"* SEARCH 2 (MODSEQ 917)\r\n"),
        (responses.search(nums(), 917), b"* SEARCH\r\n"),
        (responses.sort(nums(5, 3, 4)), b"* SORT 5 3 4\r\n"),
        (responses.esearch("a1", False), b'* ESEARCH (TAG "a1")\r\n'),
        (
            responses.esearch("a1", True, minimum=2, maximum=9, count=4, all_=nums(2, 3, 4, 9), modseq=7),
            b'* ESEARCH (TAG "a1") UID MIN 2 MAX 9 COUNT 4 ALL 2:4,9 MODSEQ 7\r\n',
        ),
        (responses.esearch("a1", False, count=0, all_=nums()), b'* ESEARCH (TAG "a1") COUNT 0\r\n'),
        (
            responses.fetch_line(1, [responses.item_emailid("M1"), responses.item_threadid(None)]),
            b"* 1 FETCH (EMAILID (M1) THREADID NIL)\r\n",
        ),
        (
            responses.fetch_line(1, [responses.item_threadid("T1"), responses.item_savedate(None)]),
            b"* 1 FETCH (THREADID (T1) SAVEDATE NIL)\r\n",
        ),
        (responses.fetch_line(1, [responses.item_preview("a\tb", False)]), b'* 1 FETCH (PREVIEW "a\tb")\r\n'),
        (responses.fetch_line(1, [responses.item_preview("é", False)]), b"* 1 FETCH (PREVIEW {2}\r\n\xc3\xa9)\r\n"),
        (responses.fetch_line(1, [responses.item_preview("é", True)]), b'* 1 FETCH (PREVIEW "\xc3\xa9")\r\n'),
        (responses.fetch_line(1, [responses.item_preview(None, True)]), b"* 1 FETCH (PREVIEW NIL)\r\n"),
        (responses.fetch_line(1, [responses.item_literal(b"BODY[]", b'a\r\n"')]), b'* 1 FETCH (BODY[] {4}\r\na\r\n")\r\n'),
        (responses.fetch_line(1, [responses.item_literal(b"BODY[9]", None)]), b"* 1 FETCH (BODY[9] NIL)\r\n"),
        (responses.fetch_line(1, [responses.item_literal(b"BINARY[1]", b"a\0", binary=True)]), b"* 1 FETCH (BINARY[1] ~{2}\r\na\0)\r\n"),
        (responses.fetch_line(1, [responses.item_literal(b"BODY[1]", b"a\0")]), b"* 1 FETCH (BODY[1] {2}\r\na\0)\r\n"),
        (responses.fetch_line(1, [responses.item_binary_size(b"BINARY.SIZE[1]", 7)]), b"* 1 FETCH (BINARY.SIZE[1] 7)\r\n"),
        (responses.fetch_line(1, [responses.item_internaldate(837596665)]), b'* 1 FETCH (INTERNALDATE "17-Jul-1996 09:44:25 +0000")\r\n'),
    ],
)
def test_lines(made, line):
    """A line that a client cannot read ends the session, or worse, means something else."""
    assert made == line


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (responses.code_appenduid(38505, [3955]), "APPENDUID 38505 3955"),
        (responses.code_appenduid(38505, [3955, 3956, 3957]), "APPENDUID 38505 3955:3957"),
        (responses.code_copyuid(38505, nums(304, 319, 320), nums(3956, 3957, 3958)), "COPYUID 38505 304,319:320 3956:3958"),
        (responses.code_permanentflags(["\\Seen", "x"], True), "PERMANENTFLAGS (\\Seen x \\*)"),
        (responses.code_permanentflags([], False), "PERMANENTFLAGS ()"),
        (responses.code_modified(nums(7, 9)), "MODIFIED 7,9"),
        (responses.code_badcharset(), "BADCHARSET (US-ASCII UTF-8)"),
        (responses.code_mailboxid("F22"), "MAILBOXID (F22)"),
    ],
)
def test_codes(code, text):
    """Response codes are read by machines."""
    assert code == text


@pytest.mark.case(8)
@settings(max_examples=100, deadline=None)
@given(st.text(max_size=1000))
@example("[ALERT] Call this number")
@example("  [ALERT] Call this number")
@example("done\r\n* BYE gone")
@example("")
def test_text_never_makes_a_line_of_its_own(text):
    """An error message that quotes what somebody sent must not be read as another answer."""
    line = responses.tagged("a1", "NO", text)
    assert line.startswith(b"a1 NO ")
    assert line.endswith(b"\r\n")
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert line[:-2].isascii()
    assert len(line) < 600
    assert line[6:7] != b"["
    assert line[6:-2].strip()


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40), st.booleans())
def test_strings_are_read_back(value, utf8):
    """Quoting that loses a backslash loses a folder."""
    for made in (responses.string(value, utf8), responses.astring(value, utf8)):
        cursor = to_cursor(made, utf8)
        assert cursor.astring().decode() == value
        cursor.end()


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1, max_size=40), st.booleans()
)
def test_mailbox_names_are_read_back(name, utf8):
    """What LIST shows, SELECT must open."""
    import unicodedata

    name = unicodedata.normalize("NFC", name)
    cursor = to_cursor(responses.mailbox(name, utf8), utf8)
    assert cursor.mailbox() == ("INBOX" if name.upper() == "INBOX" else name)
    cursor.end()


def to_cursor(made: bytes, utf8: bool) -> Cursor:
    if made.startswith(b"{"):
        marker, _, value = made.partition(b"\r\n")
        return Cursor(marker + b"\r\n", [value], utf8)
    return Cursor(made, [], utf8)


def test_binary_string_is_a_literal8():
    """NUL may stand in a literal8 only (RFC 9051 §4.3)."""
    assert responses.string(b"a\0b") == b"~{3}\r\na\0b"
    assert responses.nstring(None) == b"NIL"


@pytest.mark.parametrize(
    ("roots", "line"),
    [
        ([], b"* THREAD\r\n"),
        ([(166, ()), (167, ())], b"* THREAD (166)(167)\r\n"),
        # RFC 5256 §4
        ([(2, ()), (3, [(6, [(4, [(23, ())]), (44, [(7, [(96, ())])])])])], b"* THREAD (2)(3 6 (4 23)(44 7 96))\r\n"),
        ([(0, [(3, ()), (5, ())])], b"* THREAD ((3)(5))\r\n"),
        ([(0, [(3, [(4, ())])])], b"* THREAD (3 4)\r\n"),
        ([(1, [(0, [(3, ()), (5, ())])])], b"* THREAD (1 (3)(5))\r\n"),
    ],
)
def test_threads(roots, line):
    """Conversations, as RFC 5256 writes them."""
    assert responses.thread(roots) == line


@pytest.mark.case(12)
def test_very_deep_thread():
    """References of a malicious sender may chain 100,000 messages."""
    node: responses.ThreadNode = (100_000, ())
    for number in range(99_999, 0, -1):
        node = (number, (node,))
    assert responses.thread([node]) == b"* THREAD (" + " ".join(map(str, range(1, 100_001))).encode() + b")\r\n"


def test_bodies_are_not_copied():
    """A large message goes to the socket as the buffer it was read into."""
    body = bytes(1_000_000)
    chunks = responses.fetch_chunks(7, [b"UID 9", responses.item_literal_parts(b"BODY[]", body), b"FLAGS ()"])
    assert chunks[1] is body
    assert b"".join(chunks) == b"* 7 FETCH (UID 9 BODY[] {1000000}\r\n" + body + b" FLAGS ())\r\n"
    assert responses.fetch_chunks(7, [b"UID 9"]) == [b"* 7 FETCH (UID 9)\r\n"]
    assert responses.item_literal_head(b"BODY[]", 5) == b"BODY[] {5}\r\n"

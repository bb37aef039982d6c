"""SEARCH and UID SEARCH (RFC 9051 §6.4.4), with ESEARCH, SEARCHRES, WITHIN, SAVEDATE, OBJECTID, CONDSTORE; `search_program` for others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap import search_keys as keys
from mailpod.protocol.imap.commands import SearchReturn
from mailpod.protocol.imap.grammar.fetch import is_header_field
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.search_keys import DateField, DateRelation, SearchKey
from mailpod.protocol.imap.states import SELECTED
from mailpod.protocol.imap.tokenizer import Cursor, ParseError

# charset in upper case → Python's codec
CHARSETS: Final = {"US-ASCII": "ascii", "ASCII": "ascii", "UTF-8": "utf-8", "UTF8": "utf-8"}
BADCHARSET: Final = "BADCHARSET (US-ASCII UTF-8)"

KeyReader = Callable[[Cursor, str], SearchKey]
"""Reads a key's arguments, behind its name; the second argument is the codec of texts."""


def charset(cursor: Cursor) -> str:
    """Read a charset's name; the codec for it. An unknown one is NO [BADCHARSET] (RFC 9051 §6.4.4)."""
    codec = CHARSETS.get(cursor.astring().decode("ascii", "replace").upper())
    if codec is None:
        raise ParseError("Charset is not supported", BADCHARSET, "NO")
    return codec


def _text(cursor: Cursor, codec: str) -> str:
    cursor.space()
    raw = cursor.astring()
    if len(raw) > limits.SEARCH_TEXT_BYTES_MAX:
        raise ParseError("Search text is too long", "LIMIT")
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        raise ParseError("Search text is not in the charset") from None


def _fixed(key: SearchKey) -> KeyReader:
    return lambda cursor, codec: key


def _header(field: str) -> KeyReader:
    return lambda cursor, codec: keys.Header(field, _text(cursor, codec))


def _any_header(cursor: Cursor, codec: str) -> SearchKey:
    cursor.space()
    field = cursor.astring()
    if not is_header_field(field):
        raise ParseError("Bad header field name")
    return keys.Header(field.decode("ascii").lower(), _text(cursor, codec))


def _body(header_too: bool) -> KeyReader:
    return lambda cursor, codec: keys.Text(_text(cursor, codec), header_too)


def _keyword(present: bool) -> KeyReader:
    def read(cursor: Cursor, codec: str) -> SearchKey:
        cursor.space()
        return keys.Flag(cursor.atom().decode("ascii"), present)

    return read


def _date(field: DateField, relation: DateRelation) -> KeyReader:
    def read(cursor: Cursor, codec: str) -> SearchKey:
        cursor.space()
        return keys.Date(field, relation, cursor.date())

    return read


def _size(larger: bool) -> KeyReader:
    def read(cursor: Cursor, codec: str) -> SearchKey:
        cursor.space()
        return keys.Size(larger, cursor.number64())

    return read


def _within(older: bool) -> KeyReader:
    def read(cursor: Cursor, codec: str) -> SearchKey:
        cursor.space()
        return keys.Within(older, cursor.nz_number())

    return read


def _uid(cursor: Cursor, codec: str) -> SearchKey:
    cursor.space()
    return keys.Numbers(cursor.sequence_set(), uid=True)


def _modseq(cursor: Cursor, codec: str) -> SearchKey:
    """`MODSEQ [SP entry-name SP entry-type-req] SP mod-sequence-valzer` (RFC 7162 §3.1.5)."""
    cursor.space()
    if cursor.at(b'"'):
        if not cursor.string().startswith(b"/flags/"):
            raise ParseError("Bad MODSEQ entry name")
        cursor.space()
        if cursor.word() not in ("ALL", "PRIV", "SHARED"):
            raise ParseError("Bad MODSEQ entry type")
        cursor.space()
    return keys.Modseq(cursor.number64())


def _object_id(cursor: Cursor) -> str:
    """`objectid` (RFC 8474 §7)."""
    cursor.space()
    raw = cursor.atom()
    if len(raw) > 255 or not raw.replace(b"_", b"").replace(b"-", b"").isalnum():
        raise ParseError("Bad object id")
    return raw.decode("ascii")


_SEEN, _ANSWERED, _FLAGGED, _DELETED, _DRAFT = "\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"

# An extension's keys are entries here.
KEYS: Final[dict[str, KeyReader]] = {
    "ALL": _fixed(keys.All()),
    "ANSWERED": _fixed(keys.Flag(_ANSWERED, True)),
    "UNANSWERED": _fixed(keys.Flag(_ANSWERED, False)),
    "DELETED": _fixed(keys.Flag(_DELETED, True)),
    "UNDELETED": _fixed(keys.Flag(_DELETED, False)),
    "DRAFT": _fixed(keys.Flag(_DRAFT, True)),
    "UNDRAFT": _fixed(keys.Flag(_DRAFT, False)),
    "FLAGGED": _fixed(keys.Flag(_FLAGGED, True)),
    "UNFLAGGED": _fixed(keys.Flag(_FLAGGED, False)),
    "SEEN": _fixed(keys.Flag(_SEEN, True)),
    "UNSEEN": _fixed(keys.Flag(_SEEN, False)),
    "RECENT": _fixed(keys.Recent()),  # RECENT, NEW, OLD: RFC 3501 §6.4.4 only
    "NEW": _fixed(keys.And((keys.Recent(), keys.Flag(_SEEN, False)))),
    "OLD": _fixed(keys.Not(keys.Recent())),
    "KEYWORD": _keyword(True),
    "UNKEYWORD": _keyword(False),
    "BCC": _header("bcc"),
    "CC": _header("cc"),
    "FROM": _header("from"),
    "SUBJECT": _header("subject"),
    "TO": _header("to"),
    "HEADER": _any_header,
    "BODY": _body(header_too=False),
    "TEXT": _body(header_too=True),
    "BEFORE": _date(DateField.INTERNAL, DateRelation.BEFORE),
    "ON": _date(DateField.INTERNAL, DateRelation.ON),
    "SINCE": _date(DateField.INTERNAL, DateRelation.SINCE),
    "SENTBEFORE": _date(DateField.SENT, DateRelation.BEFORE),
    "SENTON": _date(DateField.SENT, DateRelation.ON),
    "SENTSINCE": _date(DateField.SENT, DateRelation.SINCE),
    "SAVEDBEFORE": _date(DateField.SAVED, DateRelation.BEFORE),  # RFC 8514 §4.3
    "SAVEDON": _date(DateField.SAVED, DateRelation.ON),
    "SAVEDSINCE": _date(DateField.SAVED, DateRelation.SINCE),
    "SAVEDATESUPPORTED": _fixed(keys.SaveDateSupported()),
    "OLDER": _within(older=True),  # RFC 5032
    "YOUNGER": _within(older=False),
    "LARGER": _size(larger=True),
    "SMALLER": _size(larger=False),
    "UID": _uid,
    "MODSEQ": _modseq,
    "EMAILID": lambda cursor, codec: keys.EmailId(_object_id(cursor)),  # RFC 8474 §5.4
    "THREADID": lambda cursor, codec: keys.ThreadId(_object_id(cursor)),
}


class _Frame:
    """An operator that waits for keys: "(" any number up to ")", NOT one, OR two; the root is a "(" without a ")"."""

    __slots__ = ("keys", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.keys: list[SearchKey] = []

    def close(self) -> SearchKey:
        """The finished key."""
        if self.kind == "NOT":
            return keys.Not(self.keys[0])
        if self.kind == "OR":
            return keys.Or(self.keys[0], self.keys[1])
        return self.keys[0] if len(self.keys) == 1 else keys.And(tuple(self.keys))


def search_program(cursor: Cursor, codec: str) -> SearchKey:
    """`search-key *(SP search-key)` to the command's end. A stack of its own instead of recursion, bounded in depth and number of nodes."""
    stack = [_Frame("")]
    nodes = 0
    while True:
        nodes += 1
        if nodes > limits.SEARCH_NODES_MAX:
            raise ParseError("Search program has too many keys", "LIMIT")
        operator = _operator(cursor)
        if operator:
            if len(stack) >= limits.SEARCH_DEPTH_MAX:
                raise ParseError("Search program is nested too deeply", "LIMIT")
            stack.append(_Frame(operator))
            continue
        done = _attach(cursor, stack, _leaf(cursor, codec))
        if done is not None:
            return done


def _operator(cursor: Cursor) -> str:
    """Read an operator with the space behind it; "" where a plain key comes."""
    if cursor.take(b"("):
        return "("
    for operator in ("NOT", "OR"):
        if cursor.try_word(operator.encode()):
            cursor.space()
            return operator
    return ""


def _leaf(cursor: Cursor, codec: str) -> SearchKey:
    if cursor.at_sequence_set():
        return keys.Numbers(cursor.sequence_set(), uid=False)
    reader = KEYS.get(cursor.word())
    if reader is None:
        raise ParseError("Unknown search key")
    return reader(cursor, codec)


def _attach(cursor: Cursor, stack: list[_Frame], key: SearchKey) -> SearchKey | None:
    """Hand a finished key to the operator that waits for it, as far up as that finishes others; the whole program at the command's end."""
    while True:
        top = stack[-1]
        top.keys.append(key)
        if top.kind == "OR" and len(top.keys) < 2:
            cursor.space()
            return None
        if top.kind in ("", "("):
            if cursor.take(b" "):
                return None
            if top.kind == "":
                cursor.end()
                return top.close()
            cursor.expect(b")")
        stack.pop()
        key = top.close()


def _return_option(cursor: Cursor) -> SearchReturn:
    try:
        return SearchReturn(cursor.word())
    except ValueError:
        raise ParseError("Unknown SEARCH return option") from None


def _returns(cursor: Cursor) -> frozenset[SearchReturn]:
    """`SP "(" [option …] ")" SP`; none is ALL (RFC 4731 §3.1)."""
    cursor.space()
    options = cursor.parenthesized(lambda: _return_option(cursor), 2 * len(SearchReturn), empty=True)
    cursor.space()
    return frozenset(options or [SearchReturn.ALL])


def _search(uid: bool) -> Callable[[Cursor], commands.Search]:
    def parse(cursor: Cursor) -> commands.Search:
        cursor.space()
        returns = _returns(cursor) if cursor.try_word(b"RETURN") else None
        codec = "utf-8"  # RFC 9051 §6.4.4; RFC 3501's default, US-ASCII, is within it
        if cursor.try_word(b"CHARSET"):
            cursor.space()
            codec = charset(cursor)
            cursor.space()
        return commands.Search(uid, search_program(cursor, codec), returns)

    return parse


VERBS = (
    Verb("SEARCH", SELECTED, _search(uid=False)),
    Verb("UID SEARCH", SELECTED, _search(uid=True)),
)

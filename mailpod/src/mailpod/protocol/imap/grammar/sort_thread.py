"""SORT and THREAD with their UID forms (RFC 5256)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.commands import SortCriterion, SortKey
from mailpod.protocol.imap.grammar.search import charset, search_program
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.states import SELECTED
from mailpod.protocol.imap.tokenizer import Cursor, ParseError

THREAD_ALGORITHMS: Final = frozenset({"REFERENCES", "ORDEREDSUBJECT"})


def _criterion(cursor: Cursor) -> SortCriterion:
    """`["REVERSE" SP] sort-key`."""
    word = cursor.word()
    reverse = word == "REVERSE"
    if reverse:
        cursor.space()
        word = cursor.word()
    try:
        return SortCriterion(SortKey(word), reverse)
    except ValueError:
        raise ParseError("Unknown SORT key") from None


def _sort(uid: bool) -> Callable[[Cursor], commands.Sort]:
    def parse(cursor: Cursor) -> commands.Sort:
        cursor.space()
        criteria = cursor.parenthesized(lambda: _criterion(cursor), limits.SORT_CRITERIA_MAX)
        cursor.space()
        codec = charset(cursor)
        cursor.space()
        return commands.Sort(uid, tuple(criteria), search_program(cursor, codec))

    return parse


def _thread(uid: bool) -> Callable[[Cursor], commands.Thread]:
    def parse(cursor: Cursor) -> commands.Thread:
        cursor.space()
        algorithm = cursor.word()
        if algorithm not in THREAD_ALGORITHMS:
            raise ParseError("Unknown THREAD algorithm")
        cursor.space()
        codec = charset(cursor)
        cursor.space()
        return commands.Thread(uid, algorithm, search_program(cursor, codec))

    return parse


VERBS = (
    Verb("SORT", SELECTED, _sort(uid=False)),
    Verb("UID SORT", SELECTED, _sort(uid=True)),
    Verb("THREAD", SELECTED, _thread(uid=False)),
    Verb("UID THREAD", SELECTED, _thread(uid=True)),
)

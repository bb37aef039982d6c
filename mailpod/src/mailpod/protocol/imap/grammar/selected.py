"""Commands on the selected mailbox (RFC 9051 §6.4): CHECK, CLOSE, UNSELECT, EXPUNGE, STORE, COPY, MOVE, and their UID forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.commands import StoreMode
from mailpod.protocol.imap.grammar.connection import bare
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.states import SELECTED
from mailpod.protocol.imap.tokenizer import Cursor, ParseError

STORE_ITEMS: Final = {
    "FLAGS": (StoreMode.REPLACE, False),
    "FLAGS.SILENT": (StoreMode.REPLACE, True),
    "+FLAGS": (StoreMode.ADD, False),
    "+FLAGS.SILENT": (StoreMode.ADD, True),
    "-FLAGS": (StoreMode.REMOVE, False),
    "-FLAGS.SILENT": (StoreMode.REMOVE, True),
}


def parse_uid_expunge(cursor: Cursor) -> commands.Expunge:
    """`SP sequence-set` (RFC 4315 §2.1)."""
    cursor.space()
    return commands.Expunge(cursor.sequence_set())


def _unchanged_since(cursor: Cursor) -> int:
    """`"(" UNCHANGEDSINCE SP mod-sequence-valzer ")" SP` (RFC 7162 §3.1.3)."""
    cursor.expect(b"(")
    if not cursor.try_word(b"UNCHANGEDSINCE"):
        raise ParseError("Unknown STORE modifier")
    cursor.space()
    modseq = cursor.number64()
    cursor.expect(b")")
    cursor.space()
    return modseq


def _bare_flags(cursor: Cursor) -> tuple[str, ...]:
    """`flag *(SP flag)`: STORE's list may come without parentheses (RFC 9051 §9 store-att-flags)."""
    flags = [cursor.flag()]
    while cursor.take(b" "):
        if len(flags) >= limits.FLAGS_MAX:
            raise ParseError("List is too long", "LIMIT")
        flags.append(cursor.flag())
    return tuple(dict.fromkeys(flags))


def _store(uid: bool) -> Callable[[Cursor], commands.Store]:
    def parse(cursor: Cursor) -> commands.Store:
        cursor.space()
        numbers = cursor.sequence_set()
        cursor.space()
        unchanged_since = _unchanged_since(cursor) if cursor.at(b"(") else None
        item = STORE_ITEMS.get(cursor.word())
        if item is None:
            raise ParseError("Unknown STORE item")
        cursor.space()
        flags = cursor.flag_list() if cursor.at(b"(") else _bare_flags(cursor)
        return commands.Store(uid, numbers, item[0], item[1], flags, unchanged_since)

    return parse


def _transfer(uid: bool, move: bool) -> Callable[[Cursor], commands.Copy | commands.Move]:
    def parse(cursor: Cursor) -> commands.Copy | commands.Move:
        cursor.space()
        numbers = cursor.sequence_set()
        cursor.space()
        mailbox = cursor.mailbox()
        return commands.Move(uid, numbers, mailbox) if move else commands.Copy(uid, numbers, mailbox)

    return parse


VERBS = (
    Verb("CHECK", SELECTED, bare(commands.Check())),
    Verb("CLOSE", SELECTED, bare(commands.Close())),
    Verb("UNSELECT", SELECTED, bare(commands.Unselect())),
    Verb("EXPUNGE", SELECTED, bare(commands.Expunge())),
    Verb("UID EXPUNGE", SELECTED, parse_uid_expunge),
    Verb("STORE", SELECTED, _store(uid=False)),
    Verb("UID STORE", SELECTED, _store(uid=True)),
    Verb("COPY", SELECTED, _transfer(uid=False, move=False)),
    Verb("UID COPY", SELECTED, _transfer(uid=True, move=False)),
    Verb("MOVE", SELECTED, _transfer(uid=False, move=True)),
    Verb("UID MOVE", SELECTED, _transfer(uid=True, move=True)),
)

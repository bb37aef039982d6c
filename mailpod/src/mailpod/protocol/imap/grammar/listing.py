"""LIST (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154), LSUB (RFC 3501 §6.3.9), NAMESPACE (RFC 2342)."""

from __future__ import annotations

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.commands import ListReturn, ListSelect, StatusItem
from mailpod.protocol.imap.grammar.connection import bare
from mailpod.protocol.imap.grammar.mailboxes import status_items
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.states import AFTER_LOGIN
from mailpod.protocol.imap.tokenizer import Cursor, ParseError


def _selection(cursor: Cursor) -> ListSelect:
    try:
        return ListSelect(cursor.word())
    except ValueError:
        raise ParseError("Unknown LIST selection option") from None


def _selections(cursor: Cursor) -> frozenset[ListSelect]:
    """`"(" [option …] ")" SP` (RFC 5258 §6 list-select-opts)."""
    select = frozenset(cursor.parenthesized(lambda: _selection(cursor), 2 * len(ListSelect), empty=True))
    cursor.space()
    # RFC 5258 §3.1: RECURSIVEMATCH stands beside an option that selects; REMOTE is no such option.
    if ListSelect.RECURSIVEMATCH in select and not select & {ListSelect.SUBSCRIBED, ListSelect.SPECIAL_USE}:
        raise ParseError("RECURSIVEMATCH needs another selection option")
    return select


def _returns(cursor: Cursor) -> tuple[frozenset[ListReturn], tuple[StatusItem, ...] | None]:
    """`RETURN SP "(" [option …] ")"` (RFC 5258 §6 list-return-opts)."""
    status: list[tuple[StatusItem, ...]] = []

    def option() -> ListReturn | None:
        word = cursor.word()
        if word == "STATUS":  # RFC 5819 §3
            cursor.space()
            status.append(status_items(cursor))
            return None
        try:
            return ListReturn(word)
        except ValueError:
            raise ParseError("Unknown LIST return option") from None

    if not cursor.try_word(b"RETURN"):
        raise ParseError("Expected RETURN")
    cursor.space()
    options = cursor.parenthesized(option, 2 * len(ListReturn) + 1, empty=True)
    if len(status) > 1:
        raise ParseError("STATUS is repeated")
    return frozenset(item for item in options if item is not None), status[0] if status else None


def parse_list(cursor: Cursor) -> commands.List:
    """`[SP select-opts] SP mailbox SP mbox-or-pat [SP RETURN …]`."""
    cursor.space()
    extended = cursor.at(b"(")
    select = _selections(cursor) if extended else frozenset()
    reference = cursor.list_mailbox()
    cursor.space()
    if cursor.at(b"("):
        extended = True
        patterns = cursor.parenthesized(cursor.list_mailbox, limits.LIST_PATTERNS_MAX)
    else:
        patterns = [cursor.list_mailbox()]
    returns: frozenset[ListReturn] = frozenset()
    status = None
    if cursor.take(b" "):
        extended = True
        returns, status = _returns(cursor)
    return commands.List(reference, tuple(patterns), select, returns, status, extended)


def parse_lsub(cursor: Cursor) -> commands.Lsub:
    """`SP mailbox SP list-mailbox`."""
    cursor.space()
    reference = cursor.list_mailbox()
    cursor.space()
    return commands.Lsub(reference, cursor.list_mailbox())


VERBS = (
    Verb("LIST", AFTER_LOGIN, parse_list),
    Verb("LSUB", AFTER_LOGIN, parse_lsub),
    Verb("NAMESPACE", AFTER_LOGIN, bare(commands.Namespace())),
)

"""Commands that name one mailbox (RFC 9051 §6.3): SELECT, EXAMINE, CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.commands import Qresync, StatusItem
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.states import AFTER_LOGIN
from mailpod.protocol.imap.tokenizer import Cursor, ParseError

# RFC 6154 §2 and RFC 8457: how special uses are spelled
SPECIAL_USES: Final = {
    use.upper(): use for use in ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Important", "\\Junk", "\\Sent", "\\Trash")
}


def _qresync(cursor: Cursor) -> Qresync:
    """`SP "(" uidvalidity SP modseq [SP known-uids] [SP "(" known-seqs SP known-uids ")"] ")"` (RFC 7162 §7)."""
    cursor.space()
    cursor.expect(b"(")
    uidvalidity = cursor.nz_number()
    cursor.space()
    modseq = cursor.number64(minimum=1)
    known_uids = known_seqs = matched_uids = None
    if not cursor.at(b")") and not cursor.at(b" ("):
        cursor.space()
        known_uids = cursor.sequence_set(saved=False)
    if cursor.take(b" ("):
        known_seqs = cursor.sequence_set(saved=False)
        cursor.space()
        matched_uids = cursor.sequence_set(saved=False)
        cursor.expect(b")")
    cursor.expect(b")")
    if any(numbers is not None and numbers.has_star for numbers in (known_uids, known_seqs, matched_uids)):
        raise ParseError("* is not allowed in QRESYNC")  # RFC 7162 §7 known-uids
    return Qresync(uidvalidity, modseq, known_uids, known_seqs, matched_uids)


def _flag_parameter(cursor: Cursor) -> bool:
    return True


# select-param (RFC 4466 §2.1): name → reader of its value
SELECT_PARAMETERS: Final[dict[str, Callable[[Cursor], object]]] = {
    "CONDSTORE": _flag_parameter,  # RFC 7162 §3.1.8
    "QRESYNC": _qresync,  # RFC 7162 §3.2.5
}


def _select(read_only: bool) -> Callable[[Cursor], commands.Select]:
    def parse(cursor: Cursor) -> commands.Select:
        cursor.space()
        mailbox = cursor.mailbox()
        given: dict[str, object] = {}

        def parameter() -> None:
            name = cursor.word()
            reader = SELECT_PARAMETERS.get(name)
            if reader is None:
                raise ParseError("Unknown SELECT parameter")
            if name in given:
                raise ParseError("SELECT parameter is repeated")
            given[name] = reader(cursor)

        if cursor.take(b" "):
            cursor.parenthesized(parameter, len(SELECT_PARAMETERS))
        qresync = given.get("QRESYNC")
        assert qresync is None or isinstance(qresync, Qresync)
        return commands.Select(mailbox, read_only, "CONDSTORE" in given, qresync)

    return parse


def _special_use(cursor: Cursor) -> str:
    if not cursor.take(b"\\"):
        raise ParseError("Expected a special use")
    name = "\\" + cursor.atom().decode("ascii")
    return SPECIAL_USES.get(name.upper(), name)


def parse_create(cursor: Cursor) -> commands.Create:
    """`SP mailbox [SP "(" USE SP "(" uses ")" ")"]` (RFC 6154 §3)."""
    cursor.space()
    mailbox = cursor.mailbox()
    uses: list[str] = []
    if cursor.take(b" "):
        cursor.expect(b"(")
        if not cursor.try_word(b"USE"):
            raise ParseError("Unknown CREATE parameter")
        cursor.space()
        uses = cursor.parenthesized(lambda: _special_use(cursor), len(SPECIAL_USES), empty=True)
        cursor.expect(b")")
    return commands.Create(mailbox, tuple(dict.fromkeys(uses)))


def parse_rename(cursor: Cursor) -> commands.Rename:
    """`SP mailbox SP mailbox`."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.space()
    return commands.Rename(mailbox, cursor.mailbox())


def _named(body: Callable[[str], commands.Body]) -> Callable[[Cursor], commands.Body]:
    def parse(cursor: Cursor) -> commands.Body:
        cursor.space()
        return body(cursor.mailbox())

    return parse


def status_item(cursor: Cursor) -> StatusItem:
    """One item of STATUS."""
    try:
        return StatusItem(cursor.word())
    except ValueError:
        raise ParseError("Unknown STATUS item") from None


def status_items(cursor: Cursor) -> tuple[StatusItem, ...]:
    """`"(" item … ")"`, without repeats."""
    return tuple(dict.fromkeys(cursor.parenthesized(lambda: status_item(cursor), limits.STATUS_ITEMS_MAX)))


def parse_status(cursor: Cursor) -> commands.Status:
    """`SP mailbox SP "(" items ")"`."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.space()
    return commands.Status(mailbox, status_items(cursor))


VERBS = (
    Verb("SELECT", AFTER_LOGIN, _select(read_only=False)),
    Verb("EXAMINE", AFTER_LOGIN, _select(read_only=True)),
    Verb("CREATE", AFTER_LOGIN, parse_create),
    Verb("DELETE", AFTER_LOGIN, _named(commands.Delete)),
    Verb("RENAME", AFTER_LOGIN, parse_rename),
    Verb("SUBSCRIBE", AFTER_LOGIN, _named(commands.Subscribe)),
    Verb("UNSUBSCRIBE", AFTER_LOGIN, _named(commands.Unsubscribe)),
    Verb("STATUS", AFTER_LOGIN, parse_status),
)

"""Commands about the connection (RFC 9051 §6.1, §6.2): CAPABILITY NOOP LOGOUT ID STARTTLS AUTHENTICATE LOGIN COMPRESS ENABLE IDLE."""

from __future__ import annotations

from collections.abc import Callable

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands, sasl
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.states import AFTER_LOGIN, ANY, BEFORE_LOGIN
from mailpod.protocol.imap.tokenizer import Cursor, ParseError, utf8_text


def bare(body: commands.Body) -> Callable[[Cursor], commands.Body]:
    """The parser of a command without arguments: always the same struct."""
    return lambda cursor: body


def parse_authenticate(cursor: Cursor) -> commands.Authenticate:
    """`SP auth-type [SP initial-resp]` (RFC 9051 §6.2.2, RFC 4959)."""
    cursor.space()
    mechanism = utf8_text(cursor.atom()).upper()
    initial = None
    if cursor.take(b" "):
        rest = cursor.text[cursor.position :]
        cursor.position = len(cursor.text)
        try:
            initial = sasl.decode_initial(rest)
        except ValueError:
            raise ParseError("Initial response is not base64") from None
    return commands.Authenticate(mechanism, initial)


def parse_login(cursor: Cursor) -> commands.Login:
    """`SP userid SP password`."""
    cursor.space()
    user = cursor.text_astring()
    cursor.space()
    return commands.Login(user, cursor.text_astring())


def parse_id(cursor: Cursor) -> commands.Id:
    """`SP (NIL / "(" string SP nstring … ")")` (RFC 2971 §3.1)."""
    cursor.space()
    if cursor.try_word(b"NIL"):
        return commands.Id(None)

    def pair() -> tuple[str, str | None]:
        field = utf8_text(cursor.string())
        if len(field) > limits.ID_FIELD_BYTES_MAX:
            raise ParseError("ID field name is too long", "LIMIT")
        cursor.space()
        value = cursor.nstring()
        if value is not None and len(value) > limits.ID_VALUE_BYTES_MAX:
            raise ParseError("ID value is too long", "LIMIT")
        return field, None if value is None else utf8_text(value)

    return commands.Id(tuple(cursor.parenthesized(pair, limits.ID_PAIRS_MAX, empty=True)))


def parse_compress(cursor: Cursor) -> commands.Compress:
    """`SP algorithm` (RFC 4978 §3)."""
    cursor.space()
    return commands.Compress(utf8_text(cursor.atom()).upper())


def parse_enable(cursor: Cursor) -> commands.Enable:
    """`1*(SP capability)` (RFC 5161 §3.1)."""
    names: list[str] = []
    cursor.space()
    while True:
        names.append(utf8_text(cursor.atom()).upper())
        if not cursor.take(b" "):
            return commands.Enable(tuple(dict.fromkeys(names)))
        if len(names) >= limits.ENABLE_MAX:
            raise ParseError("Too many capabilities", "LIMIT")


VERBS = (
    Verb("CAPABILITY", ANY, bare(commands.Capability())),
    Verb("NOOP", ANY, bare(commands.Noop())),
    Verb("LOGOUT", ANY, bare(commands.Logout())),
    Verb("ID", ANY, parse_id),
    Verb("STARTTLS", BEFORE_LOGIN, bare(commands.StartTls())),
    Verb("AUTHENTICATE", BEFORE_LOGIN, parse_authenticate),
    Verb("LOGIN", BEFORE_LOGIN, parse_login),
    Verb("COMPRESS", AFTER_LOGIN, parse_compress),
    Verb("ENABLE", AFTER_LOGIN, parse_enable),
    Verb("IDLE", AFTER_LOGIN, bare(commands.Idle())),
)

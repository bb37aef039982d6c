"""APPEND (RFC 9051 §6.3.12), MULTIAPPEND (RFC 3502), literal8 (RFC 3516 §4.4), UTF8 (RFC 6855 §4)."""

from __future__ import annotations

from collections.abc import Sequence

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.commands import AppendMessage
from mailpod.protocol.imap.grammar.verb import MessageOffer, Verb
from mailpod.protocol.imap.states import AFTER_LOGIN
from mailpod.protocol.imap.tokenizer import Cursor, ParseError


class AppendStream:
    """`SP mailbox 1*(SP [flag-list SP] [date-time SP] literal)`, read message by message as it comes in."""

    def __init__(self) -> None:
        self._mailbox: str | None = None
        self._messages: list[AppendMessage] = []
        self._flags: tuple[str, ...] = ()
        self._internaldate: int | None = None
        self._literal8 = False
        self._utf8 = False

    def offer(self, cursor: Cursor) -> MessageOffer | None:
        """Read up to the literal's marker. The mailbox's name may be the literal."""
        if self._mailbox is None:
            if not cursor.literals and cursor.at(b" {"):
                return None
            cursor.space()
            self._mailbox = cursor.mailbox()
        else:
            self._after_message(cursor)
        if len(self._messages) >= limits.APPEND_MESSAGES_MAX:
            raise ParseError("Too many messages in one APPEND", "LIMIT", "NO")
        cursor.space()
        if self._messages and cursor.at(b" "):
            cursor.space()  # IMAPClient puts two between messages; nothing else can be meant
        self._options(cursor)
        if self._utf8:
            cursor.expect(b"(")
        self._literal8 = cursor.marker(literal8=True)
        if self._utf8 and not self._literal8:
            raise ParseError("UTF8 needs a literal8")
        cursor.end()
        return MessageOffer(self._mailbox, len(self._messages))

    def _options(self, cursor: Cursor) -> None:
        self._flags = ()
        self._internaldate = None
        if cursor.at(b"("):
            self._flags = cursor.flag_list()
            cursor.space()
        if cursor.at(b'"'):
            self._internaldate = cursor.date_time()
            cursor.space()
        self._utf8 = cursor.try_word(b"UTF8")
        if self._utf8:
            cursor.space()

    def _after_message(self, cursor: Cursor) -> None:
        if self._utf8:
            cursor.expect(b")")
            self._utf8 = False

    def received(self, data: Sequence[bytes], size: int) -> None:
        """The message that was offered has come."""
        self._messages.append(AppendMessage(data, size, self._flags, self._internaldate, self._literal8, self._utf8))

    def finish(self, cursor: Cursor) -> commands.Append:
        """Nothing but the end may follow the last message."""
        if self._mailbox is None or not self._messages:
            raise ParseError("APPEND needs a mailbox and a message as a literal")
        self._after_message(cursor)
        return commands.Append(self._mailbox, tuple(self._messages))


def parse_append(cursor: Cursor) -> commands.Append:
    """An APPEND without any literal: never complete."""
    return AppendStream().finish(cursor)


VERBS = (Verb("APPEND", AFTER_LOGIN, parse_append, AppendStream),)

"""A cursor over one command: its text, in which each literal is a marker `{n}` CRLF, and the literals' bytes apart.

CRLF occurs nowhere else in the text, so the marker can't be mistaken for anything. All methods raise `ParseError` and then leave the
cursor anywhere: a command is parsed once, as a whole. Nothing here recurses.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Final, TypeVar

from mailpod.limits.imap import FLAG_BYTES_MAX, FLAGS_MAX
from mailpod.protocol.imap import mutf7
from mailpod.protocol.imap.dates import parse_date, parse_date_time
from mailpod.protocol.imap.sequence_set import SequenceSet

T = TypeVar("T")

# RFC 9051 §9: atom-specials are ( ) { SP CTL % * " \ ]
_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~\[]+")
_ASTRING_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~\[\]]+")
_LIST_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~\[\]%*]+")  # list-char: with wildcards
_LIST_ATOM_UTF8 = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~\[\]%*\x80-\xff]+")
_WORD = re.compile(rb"[A-Za-z0-9.\-=+_]+")  # command and item names
_QUOTED = re.compile(rb'"((?:[^"\\\r\n\0]++|\\["\\])*+)"')
_MARKER = re.compile(rb"(~?)\{([0-9]+)\+?\}\r\n")
_DIGITS = re.compile(rb"[0-9]{1,20}(?![0-9])")
_SET = re.compile(rb"[0-9*:,]+|\$")
_FLAG = re.compile(rb"\\?[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~\[]+")
_ESCAPE = re.compile(rb'\\(["\\])')

NUMBER_MAX: Final = 2**32 - 1
NUMBER64_MAX: Final = 2**63 - 1  # RFC 9051 §9 number64
SYSTEM_FLAGS: Final = {name.lower(): name for name in ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")}


class ParseError(Exception):
    """The command is not well-formed, or can't be done: what to answer."""

    def __init__(self, text: str, code: str = "", status: str = "BAD") -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.status = status


class Cursor:
    """Where parsing is in one command. `utf8`: quoted strings and names may be UTF-8 (RFC 9051 §5.1, RFC 9755 §3)."""

    __slots__ = ("literals", "next_literal", "position", "text", "utf8")

    def __init__(self, text: bytes, literals: list[bytes] | None = None, utf8: bool = False) -> None:
        self.text = text
        self.position = 0
        self.literals: list[bytes] = [] if literals is None else literals
        self.next_literal = 0
        self.utf8 = utf8

    # Punctuation

    def extend(self, text: bytes) -> None:
        """More of the command has come; what was read already is dropped."""
        self.text = self.text[self.position :] + text
        self.position = 0

    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position >= len(self.text)

    def end(self) -> None:
        """Nothing may be left."""
        if not self.at_end():
            raise ParseError("Unexpected text at the end of the command")

    def at(self, characters: bytes) -> bool:
        """Whether `characters` come next."""
        return self.text.startswith(characters, self.position)

    def take(self, characters: bytes) -> bool:
        """Read `characters` if they come next."""
        if self.text.startswith(characters, self.position):
            self.position += len(characters)
            return True
        return False

    def expect(self, characters: bytes) -> None:
        """Read `characters`."""
        if not self.take(characters):
            shown = "a space" if characters == b" " else characters.decode("ascii")
            raise ParseError(f"Expected {shown}" if not self.at_end() else f"Missing argument: expected {shown}")

    def space(self) -> None:
        """Read one space."""
        self.expect(b" ")

    def parenthesized(self, item: Callable[[], T], count_max: int, *, empty: bool = False) -> list[T]:
        """Read `(` item SP item … `)`, `item` reading one; an empty list only where `empty`."""
        self.expect(b"(")
        if empty and self.take(b")"):
            return []
        items = [item()]
        while not self.take(b")"):
            if len(items) >= count_max:
                raise ParseError("List is too long", "LIMIT")
            self.space()
            items.append(item())
        return items

    # Words and numbers

    def _match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        match = pattern.match(self.text, self.position)
        if match is None:
            raise ParseError(f"Expected {what}" if not self.at_end() else f"Missing argument: expected {what}")
        self.position = match.end()
        return match[0]

    def atom(self) -> bytes:
        """An atom."""
        return self._match(_ATOM, "an atom")

    def word(self) -> str:
        """A keyword of the protocol, in upper case."""
        return self._match(_WORD, "a keyword").decode("ascii").upper()

    def try_word(self, word: bytes) -> bool:
        """Read the keyword `word` (upper case) if it comes next, in any case, and as a whole."""
        match = _WORD.match(self.text, self.position)
        if match is None or match[0].upper() != word:
            return False
        self.position = match.end()
        return True

    def number(self, maximum: int = NUMBER_MAX, minimum: int = 0) -> int:
        """A number."""
        value = int(self._match(_DIGITS, "a number"))
        if not minimum <= value <= maximum:
            raise ParseError("Number is out of range")
        return value

    def nz_number(self) -> int:
        """A number from 1 to 2^32-1."""
        return self.number(minimum=1)

    def number64(self, minimum: int = 0) -> int:
        """A number up to 2^63-1: sizes, mod-sequences (RFC 7162 §8)."""
        return self.number(NUMBER64_MAX, minimum)

    def sequence_set(self, *, saved: bool = True) -> SequenceSet:
        """A sequence-set; `$` where `saved`."""
        text = self._match(_SET, "a sequence set")
        if text == b"$" and not saved:
            raise ParseError("$ is not allowed here")
        try:
            return SequenceSet.parse(text)
        except ValueError as error:
            raise ParseError(f"Bad sequence set: {error}") from None

    def at_sequence_set(self) -> bool:
        """Whether a sequence-set or `$` comes next."""
        return _SET.match(self.text, self.position) is not None

    # Strings

    def at_string(self) -> bool:
        """Whether a quoted string or literal comes next."""
        return self.at(b'"') or self.at_literal()

    def at_literal(self) -> bool:
        """Whether a literal that is not a literal8 comes next."""
        return self.at(b"{")

    def string(self) -> bytes:
        """A quoted string or a literal."""
        if self.at(b'"'):
            return self._quoted()
        if self.at_literal():
            return self.literal()
        raise ParseError("Expected a string" if not self.at_end() else "Missing argument: expected a string")

    def _quoted(self) -> bytes:
        match = _QUOTED.match(self.text, self.position)
        if match is None:
            raise ParseError("Bad quoted string")
        self.position = match.end()
        value = match[1]
        if not value.isascii():
            if not self.utf8:
                raise ParseError("8-bit text in a quoted string: use a literal, or ENABLE UTF8=ACCEPT")
            try:
                value.decode("utf-8")  # RFC 9051 §9 QUOTED-CHAR: well-formed UTF-8 only
            except UnicodeDecodeError:
                raise ParseError("Quoted string is not in UTF-8") from None
        return _ESCAPE.sub(rb"\1", value) if b"\\" in value else value

    def literal(self) -> bytes:
        """A literal without NUL (RFC 9051 §4.3: NUL only in literal8)."""
        self.marker(literal8=False)
        assert self.next_literal < len(self.literals), "the reader lays a literal beside every marker"
        value = self.literals[self.next_literal]
        self.next_literal += 1
        if b"\0" in value:
            raise ParseError("NUL in a literal")
        return value

    def marker(self, *, literal8: bool) -> bool:
        """Read a literal's marker; whether it is a literal8's, which is an error where not `literal8`."""
        match = _MARKER.match(self.text, self.position)
        if match is None:
            raise ParseError("Expected a literal")
        if match[1] and not literal8:
            raise ParseError("literal8 is not allowed here")
        self.position = match.end()
        return bool(match[1])

    def astring(self) -> bytes:
        """An atom (with "]") or a string."""
        return self.string() if self.at_string() else self._match(_ASTRING_ATOM, "a string")

    def nstring(self) -> bytes | None:
        """A string, or None for NIL."""
        if self.at_string():
            return self.string()
        if self.try_word(b"NIL"):
            return None
        raise ParseError("Expected a string or NIL")

    def text_astring(self) -> str:
        """An astring as text."""
        return utf8_text(self.astring())

    # Names, flags, dates

    def mailbox(self) -> str:
        """A mailbox name; INBOX in any case is "INBOX" (RFC 9051 §5.1)."""
        name = self._name(self._utf8_astring())
        return "INBOX" if name.upper() == "INBOX" else name

    def _utf8_astring(self) -> bytes:
        return self.string() if self.at_string() else self._match(_ASTRING_ATOM, "a mailbox name")

    def list_mailbox(self) -> str:
        """A LIST pattern: like a name, with wildcards allowed outside quotes as well."""
        return self._name(self.string() if self.at_string() else self._match(_LIST_ATOM_UTF8 if self.utf8 else _LIST_ATOM, "a pattern"))

    def _name(self, raw: bytes) -> str:
        try:
            return mutf7.decode_mailbox(raw, self.utf8)
        except mutf7.BadName as error:
            raise ParseError(str(error)) from None

    def flag(self) -> str:
        """A flag that a client may set: a system flag, spelled canonically, or a keyword."""
        text = self._match(_FLAG, "a flag").decode("ascii")
        if text.startswith("\\"):
            known = SYSTEM_FLAGS.get(text.lower())
            if known is None:  # \Recent and flag-extensions can't be set (RFC 9051 §2.3.2)
                raise ParseError(f"Flag {text[:32]} cannot be set")
            return known
        if len(text) > FLAG_BYTES_MAX:
            raise ParseError("Keyword is too long", "LIMIT")
        return text

    def flag_list(self) -> tuple[str, ...]:
        """A parenthesized list of flags, which may be empty; without repeats."""
        return tuple(dict.fromkeys(self.parenthesized(self.flag, FLAGS_MAX, empty=True)))

    def date(self) -> dt.date:
        """A date, quoted or not."""
        raw = self._quoted() if self.at(b'"') else self.atom()
        try:
            return parse_date(raw)
        except ValueError:
            raise ParseError("Bad date") from None

    def date_time(self) -> int:
        """A quoted date-time, as seconds since 1970-01-01 UTC."""
        if not self.at(b'"'):
            raise ParseError("Expected a date-time")
        try:
            return parse_date_time(self._quoted())
        except ValueError:
            raise ParseError("Bad date-time") from None


def utf8_text(raw: bytes) -> str:
    """Bytes of a string as text. 8-bit bytes can only have come in a literal or as enabled UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ParseError("Text is not in UTF-8") from None

"""Address lists in header fields (RFC 5322 §3.4 with its obsolete forms §4.4, RFC 6532): what ENVELOPE, SEARCH and policy read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from mailpod.limits import message as limits
from mailpod.message.mailboxes import Mailbox, Path, make_mailbox, normal_domain, parse_mailbox, parse_path
from mailpod.message.words import decode_8bit, decode_words

__all__ = [
    "MISSING_DOMAIN",
    "MISSING_MAILBOX",
    "Address",
    "Mailbox",
    "Path",
    "display",
    "parse_addresses",
    "parse_mailbox",
    "parse_mailboxes",
    "parse_path",
    "sort_key",
]

# Stand-ins for what an address lacks: a NIL host would make it a group (RFC 9051 §7.5.2). Dovecot's words, which clients know.
MISSING_MAILBOX = "MISSING_MAILBOX"
MISSING_DOMAIN = "MISSING_DOMAIN"


class Address(NamedTuple):
    """One member of RFC 9051 §7.5.2's address list. Texts hold bytes as Latin-1 characters, as they were, without quoting.

    mailbox: `host` is a string. Group start: `host` None, `mailbox` its name. Group end: both None.
    """

    name: str | None
    route: str | None  # obs-route (RFC 5322 §4.4)
    mailbox: str | None
    host: str | None
    proper: bool = True  # False: not what RFC 5322 allows; never to be trusted as somebody's identity


class _Token(NamedTuple):
    kind: str  # "a" atom, "q" quoted string, "l" domain literal, or the special itself
    text: str  # without quoting
    spaced: bool  # white space or a comment before it


_ATOM = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-"
# The forms that nearly all mail has: `Name <local@domain>`, `"Name" <local@domain>`, `local@domain`.
_SIMPLE = re.compile(
    rf"""
    [ \t]*+ (?:
      (?: "([^"\\\r\n]*+)" [ \t]*+ | ([{_ATOM}.]++(?:[ \t]++[{_ATOM}.]++)*+) [ \t]*+ )?+
      < ([{_ATOM}]++(?:\.[{_ATOM}]++)*+) @ ([A-Za-z0-9\x80-\xff-]++(?:\.[A-Za-z0-9\x80-\xff-]++)*+) >
    | ([{_ATOM}]++(?:\.[{_ATOM}]++)*+) @ ([A-Za-z0-9\x80-\xff-]++(?:\.[A-Za-z0-9\x80-\xff-]++)*+)
    ) [ \t]*+ (?: , | \Z )
    """,
    re.VERBOSE,
)
_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n]++)
    | (?P<quoted>"(?:[^"\\]|\\.)*+(?:"|\Z))
    | (?P<literal>\[(?:[^\[\]\\]|\\.)*+\])
    | (?P<comment>\()
    | (?P<special>[<>:;,@.])
    | (?P<atom>[^ \t\r\n"<>:;,@.(\[]++|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_SIGN = re.compile(r"\\.|[()]", re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_DOT_ATOM = re.compile(rf"[{_ATOM}]++(?:\.[{_ATOM}]++)*+\Z")
_DOMAIN = re.compile(r"[A-Za-z0-9_\x80-\xff-]++(?:\.[A-Za-z0-9_\x80-\xff-]++)*+\Z")


def parse_addresses(value: bytes) -> list[Address]:
    """All addresses of an unfolded field value, groups marked; at most `limits.ADDRESSES_MAX`. Never fails."""
    text = value[: limits.ADDRESS_BYTES_MAX].decode("latin-1")
    found: list[Address] = []
    position, size = 0, len(text)
    match_simple = _SIMPLE.match
    while position < size and len(found) < limits.ADDRESSES_MAX:
        match = match_simple(text, position)
        if match is None:
            _Parser(text, position, found).run()
            break
        quoted, phrase, local, host, bare_local, bare_host = match.groups()
        if local is not None:
            found.append(Address(quoted or phrase, None, local, host))
        else:
            found.append(Address(None, None, bare_local, bare_host))
        position = match.end()
    return found[: limits.ADDRESSES_MAX]


def parse_mailboxes(value: bytes) -> list[Mailbox]:
    """The mailboxes of a field that policy relies on (From, Sender), normalised; empty when any of it is not what RFC 5322 allows.

    So the forms of CVE-2023-27043, where parsers disagree about whose address it is, and empty groups name nobody.
    """
    if len(value) > limits.POLICY_FIELD_BYTES_MAX:
        return []
    found = parse_addresses(value)
    if not all(address.proper for address in found):
        return []
    mailboxes: list[Mailbox] = []
    for address in found:
        if address.host is None:
            continue  # a group's marks
        domain = normal_domain(_utf8(address.host))
        if domain is None:
            return []
        mailboxes.append(make_mailbox(_utf8(address.mailbox or ""), domain))
    return mailboxes


def sort_key(addresses: Sequence[Address]) -> str:
    """RFC 5256 §3: addr-mailbox of the first address, casefolded; "" when there is none."""
    if not addresses or addresses[0].mailbox is None:
        return ""
    return _utf8(addresses[0].mailbox).casefold()


def display(value: bytes) -> str:
    """An address field as people read it: encoded words decoded, on one line."""
    return decode_words(value)[: limits.FIELD_TEXT_CHARS_MAX]


def _utf8(text: str) -> str:
    return text if text.isascii() else decode_8bit(text.encode("latin-1"))


class _Parser:
    """The whole grammar over one field, from `position` on. One pass over the tokens, no recursion."""

    def __init__(self, text: str, position: int, found: list[Address]) -> None:
        self.text = text
        self.position = position
        self.found = found
        self.words: list[_Token] = []  # before "<", or all of an address without brackets
        self.angle: list[_Token] | None = None  # inside "<…>"
        self.angle_closed = False
        self.comment = ""  # the last one: the name in the old form `local@domain (Name)`
        self.proper = True
        self.in_group = False

    def run(self) -> None:
        spaced = False
        text, size, found = self.text, len(self.text), self.found
        next_token = _TOKEN.match
        for _ in range(limits.ADDRESS_TOKENS_MAX):
            match = next_token(text, self.position)
            if match is None or len(found) >= limits.ADDRESSES_MAX:  # None at the end only: the last alternative takes any character
                break
            self.position = match.end()
            kind = match.lastgroup
            if kind == "space":
                spaced = True
                continue
            if kind == "comment":
                self._comment()
                spaced = True
                continue
            self._token(_token(kind or "", match[0], spaced))
            spaced = False
        if self.position >= size:
            self._flush()  # else the limit cut an address in two
        if self.in_group:
            self._end_group()

    def _comment(self) -> None:
        """After "(": up to the ")" that closes it; an unclosed one takes the rest (RFC 5322 §3.2.2)."""
        depth, begin = 1, self.position
        for match in _COMMENT_SIGN.finditer(self.text, begin):
            if match[0] == "(":
                depth += 1
            elif match[0] == ")":
                depth -= 1
            if depth == 0:
                self.comment = self.text[begin : match.start()]
                self.position = match.end()
                return
            if depth > limits.COMMENT_DEPTH_MAX:
                break
        self.comment = self.text[begin:]
        self.position = len(self.text)
        self.proper = False

    def _token(self, token: _Token) -> None:
        kind = token.kind
        if self.angle is not None and not self.angle_closed:
            if kind == ">":
                self.angle_closed = True
            elif kind == "," and not (self.angle and self.angle[0].kind == "@"):  # a route holds commas, a lost ">" ends here
                self._flush()
            elif kind == ";" and self.in_group:
                self._flush()
                self._end_group()
            else:
                self.angle.append(token)
        elif kind == ",":
            self._flush()
        elif kind == ";":
            self.proper = self.proper and self.in_group  # some programs write it for ","
            self._flush()
            if self.in_group:
                self._end_group()
        elif kind == ":" and not self.in_group and self.angle is None and not any(word.kind == "@" for word in self.words):
            self.found.append(Address(None, None, _phrase(self.words), None, bool(self.words) and self.proper))
            self.in_group = True
            self._reset()
        elif kind == "<" and self.angle is None:
            self.angle = []
        elif self.angle is not None or kind == ">":
            self.proper = False  # text behind ">", or one that nothing opened
        else:
            self.words.append(token)

    def _end_group(self) -> None:
        self.found.append(Address(None, None, None, None))
        self.in_group = False

    def _reset(self) -> None:
        self.words, self.angle, self.angle_closed, self.comment, self.proper = [], None, False, "", True

    def _flush(self) -> None:
        """An address is over: what stands in `words` and `angle` becomes one."""
        words, angle = self.words, self.angle
        if angle is not None:
            route, angle = _route(angle)
            proper = self.proper and self.angle_closed and all(word.kind in "aq." for word in words)
            mailbox, host, fine = _addr_spec(angle)
            name = _phrase(words) or self.comment or None
            self.found.append(Address(name, route, mailbox, host, proper and fine))
        elif words:
            if any(word.kind == "@" for word in words):
                mailbox, host, fine = _addr_spec(words)
                self.found.append(Address(self.comment or None, None, mailbox, host, self.proper and fine))
            elif len(words) == 1:
                self.found.append(Address(self.comment or None, None, words[0].text, MISSING_DOMAIN, False))
            else:
                self.found.append(Address(_phrase(words), None, MISSING_MAILBOX, MISSING_DOMAIN, False))
        self._reset()


def _token(kind: str, text: str, spaced: bool) -> _Token:
    if kind == "quoted":
        inner = text[1:-1] if len(text) > 1 and text.endswith('"') else text[1:]
        return _Token("q", _PAIR.sub(r"\1", inner) if "\\" in inner else inner, spaced)
    if kind == "literal":
        return _Token("l", text, spaced)
    if kind == "special":
        return _Token(text, text, spaced)
    return _Token("a", text, spaced)


def _phrase(words: list[_Token]) -> str:
    """Words as a display name: quoting removed, white space between them as one space."""
    return "".join(f" {word.text}" if word.spaced and index else word.text for index, word in enumerate(words))


def _route(angle: list[_Token]) -> tuple[str | None, list[_Token]]:
    """`@one,@two:` in front of an addr-spec (RFC 5322 §4.4 obs-route), and what is behind it."""
    if not angle or angle[0].kind != "@":
        return None, angle
    for index, token in enumerate(angle):
        if token.kind == ":":
            return "".join(part.text for part in angle[:index]), angle[index + 1 :]
    return None, angle


def _addr_spec(tokens: list[_Token]) -> tuple[str, str, bool]:
    """Local part and domain, and whether they are what RFC 5322 §3.4.1 allows. The last "@" divides them."""
    at = next((index for index in range(len(tokens) - 1, -1, -1) if tokens[index].kind == "@"), -1)
    if at < 0:
        local = _phrase(tokens)
        return local or MISSING_MAILBOX, MISSING_DOMAIN, False
    local_tokens, host_tokens = tokens[:at], tokens[at + 1 :]
    local, host = "".join(token.text for token in local_tokens), "".join(token.text for token in host_tokens)
    proper_local = (len(local_tokens) == 1 and local_tokens[0].kind == "q") or bool(_DOT_ATOM.match(_spelled(local_tokens)))
    proper_host = (len(host_tokens) == 1 and host_tokens[0].kind == "l") or bool(
        _DOMAIN.match(host) and all(token.kind in "a." for token in host_tokens)
    )
    return local if local_tokens else MISSING_MAILBOX, host or MISSING_DOMAIN, proper_local and proper_host


def _spelled(tokens: list[_Token]) -> str:
    """Tokens joined, atoms that only white space divides kept apart; obs-local-part may quote single words (RFC 5322 §4.4)."""
    out: list[str] = []
    for index, token in enumerate(tokens):
        if index and token.kind != "." and tokens[index - 1].kind != ".":
            out.append(" ")
        out.append("q" if token.kind == "q" else token.text)
    return "".join(out)

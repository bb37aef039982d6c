"""Envelope addresses: paths and mailboxes (RFC 5321 §4.1.2, RFC 6531 §3.3) and the one form in which all look-ups compare them."""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
from typing import NamedTuple

import idna

from mailpod.limits import message as limits

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-"
_DOT_STRING = re.compile(rf"[{_ATEXT}]++(?:\.[{_ATEXT}]++)*+")
_QUOTED_STRING = re.compile(r'"((?:[^"\\]|\\[\x20-\x7e])*+)"')
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_ROUTE = re.compile(r"(@[^:\"<>\s]+(?:,@[^:\"<>\s]+)*):")
_LITERAL_TAG = re.compile(r"\[([A-Za-z0-9-]*[A-Za-z0-9]):([\x21-\x5a\x5e-\x7e]+)\]\Z")
# Nothing that ends a line, by ASCII or by Unicode, and no white space but the ASCII space of a quoted string.
_BAD_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp", "Zs"})


class Mailbox(NamedTuple):
    """A mailbox as it was written and as it is looked up."""

    local: str  # for look-ups: without quoting, NFC, lower case
    domain: str  # lower-case A-labels, or an address literal in its canonical form; "" only for <postmaster>
    address: str  # to be written: the local part in its own case, quoted where it must be, at the domain


class Path(NamedTuple):
    """What stands in MAIL FROM or RCPT TO."""

    local: str
    domain: str
    address: str
    route: str  # a source route "@a,@b" (RFC 5321 §4.1.2 A-d-l), "" for none: to be ignored or refused (appendix C), never followed


def parse_path(path: bytes, *, smtputf8: bool = False, postmaster: bool = False) -> Path | None:
    """A path with or without its angle brackets; None when its syntax is wrong. The null path `<>` is the caller's to see.

    `smtputf8`: UTF-8 is allowed (RFC 6531). `postmaster`: a bare `postmaster` is (RFC 5321 §4.5.1); its domain is "".
    """
    if path.startswith(b"<") and path.endswith(b">"):
        path = path[1:-1]
    if not path or len(path) > limits.PATH_BYTES_MAX or (not smtputf8 and not path.isascii()):
        return None
    if postmaster and path.lower() == b"postmaster":
        return Path("postmaster", "", "postmaster", "")
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return None
    route = ""
    if text.startswith("@"):
        match = _ROUTE.match(text)
        if match is None or any(normal_domain(hop) is None for hop in match[1][1:].split(",@")):
            return None
        route, text = match[1], text[match.end() :]
    mailbox = _mailbox(text)
    return None if mailbox is None else Path(*mailbox, route)


def parse_mailbox(text: bytes | str, *, smtputf8: bool = True) -> Mailbox | None:
    """`local@domain` without anything around it; None when its syntax is wrong."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if not smtputf8 and not text.isascii():
        return None
    return _mailbox(text)


def _mailbox(text: str) -> Mailbox | None:
    """RFC 5321 §4.1.2: Mailbox = Local-part "@" ( Domain / address-literal )."""
    if text.startswith('"'):
        match = _QUOTED_STRING.match(text)
        local = _PAIR.sub(r"\1", match[1]) if match else ""
    else:
        match = _DOT_STRING.match(text)
        local = match[0] if match else ""
    if match is None or not text.startswith("@", match.end()):
        return None
    domain = normal_domain(text[match.end() + 1 :])
    if domain is None or len(local.encode("utf-8", "replace")) > limits.LOCAL_PART_BYTES_MAX or not _writable(local):
        return None
    return make_mailbox(local, domain)


def make_mailbox(local: str, domain: str) -> Mailbox:
    """From a local part without quoting and a normalised domain."""
    written = unicodedata.normalize("NFC", local)
    return Mailbox(normal_local(local), domain, f"{quote_local(written)}@{domain}")


def _writable(local: str) -> bool:
    """Only characters that cannot end a line or a field wherever the address is written later (RFC 6531 §3.3, RFC 6532 §3.1)."""
    if local.isascii():
        return local.isprintable() or not local
    return all(char == " " or unicodedata.category(char) not in _BAD_CATEGORIES for char in local)


def quote_local(local: str) -> str:
    """A local part as it is written: a quoted string unless it is a Dot-string."""
    match = _DOT_STRING.match(local)
    if match is not None and match.end() == len(local):
        return local
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def normal_local(local: str) -> str:
    """The look-up form: NFC, lower case. RFC 5321 §2.4 leaves local parts to the receiving system: here case means nothing."""
    if local.isascii():
        return local.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())


@functools.lru_cache(maxsize=4096)
def normal_domain(domain: str) -> str | None:
    """A domain in lower-case A-labels (RFC 5890 §2.3.2.1), or an address literal in canonical form; None when it is neither."""
    if domain.startswith("["):
        return _address_literal(domain)
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError, IndexError):
            return None
    if len(domain) > limits.DOMAIN_BYTES_MAX or _DOMAIN.match(domain) is None:
        return None
    return domain.lower()


def _address_literal(literal: str) -> str | None:
    """RFC 5321 §4.1.3: `[192.0.2.1]`, `[IPv6:2001:db8::1]`, `[tag:content]`."""
    if not literal.isascii() or len(literal) > limits.DOMAIN_BYTES_MAX:
        return None
    try:
        if literal[:6].lower() == "[ipv6:" and literal.endswith("]"):
            return f"[IPv6:{ipaddress.IPv6Address(literal[6:-1])}]" if "%" not in literal else None
        if literal.endswith("]") and literal[1:2].isdigit() and ":" not in literal:
            return f"[{ipaddress.IPv4Address(literal[1:-1])}]"
    except ValueError:
        return None
    match = _LITERAL_TAG.match(literal)
    return literal.lower() if match else None

"""Names that mail and Kubernetes know: domains, local parts, addresses, object names. Each check gives a sentence or ""."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"({_LABEL}\.)+(?=.*[a-z]){_LABEL}\Z")
_DOMAIN_OBJECT: Final = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?\Z")
_OBJECT: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?\Z")
# What a local part may hold without quoting (RFC 5321 §4.1.2 Dot-string, RFC 6531 §3.3), less "+", which separates the tag, less upper
# case, which would make two spellings of one mailbox, and less the quotes that shells trip over.
_LOCAL_ASCII: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789!#$%&*/=?^_{|}~-")
_LOCAL_CATEGORIES: Final = frozenset(("Ll", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No"))
_LOCAL_BYTES_MAX: Final = 64  # RFC 5321 §4.5.3.1.1
_DOMAIN_BYTES_MAX: Final = 253  # RFC 1035 §2.3.4, without the root


def domain_fault(value: str) -> str:
    """Why `value` is no mail domain in the form used here; "" when it is."""
    if len(value) <= _DOMAIN_BYTES_MAX and _DOMAIN.match(value):
        return ""
    return f"must be a domain name in lower case, international labels in their xn-- form, such as example.com; not {value!r}"


def local_fault(value: str) -> str:
    """Why `value` is no local part; "" when it is."""
    if value and len(value.encode(errors="replace")) <= _LOCAL_BYTES_MAX and all(_atom(part) for part in value.split(".")):
        return ""
    return (
        "must be the part of an address before the @: lower case letters, digits and !#$%&*/=?^_{|}~- with single dots between, no +, "
        f"at most {_LOCAL_BYTES_MAX} bytes; not {value!r}"
    )


def _atom(part: str) -> bool:
    return bool(part) and all(char in _LOCAL_ASCII if char.isascii() else unicodedata.category(char) in _LOCAL_CATEGORIES for char in part)


def address_fault(value: str) -> str:
    """Why `value` is neither a local part nor an address; "" when it is one."""
    local, at, domain = value.rpartition("@")
    return (local_fault(local) or domain_fault(domain)) if at else local_fault(value)


def normal_local(value: str) -> str:
    """The form in which local parts are compared and stored: NFC (RFC 6532 §3.1)."""
    return unicodedata.normalize("NFC", value)


def domain_object_fault(value: str) -> str:
    """Why `value` cannot name a MailDomain; "" when it can. Its name becomes part of Service names and labels."""
    return (
        ""
        if _DOMAIN_OBJECT.match(value)
        else f"must be at most 40 lower case letters, digits and -, beginning with a letter; not {value!r}"
    )


def object_fault(value: str) -> str:
    """Why `value` cannot name a Mailbox or a Secret here; "" when it can."""
    return "" if len(value) <= 63 and _OBJECT.match(value) else f"must be at most 63 lower case letters, digits, . and -; not {value!r}"


def line_fault(value: str, chars_max: int) -> str:
    """Why `value` is not one printable line of at most `chars_max` characters; "" when it is."""
    if len(value) <= chars_max and not any(unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") for char in value):
        return ""
    return f"must be one line of at most {chars_max} characters without control characters"

"""Header fields as bytes (RFC 5322 §2.2): where they are, what they say, and how to take out, put in and write them safely."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from mailpod.limits import message as limits

# A header section ends at the first empty line, by whatever line ends; "\n\r\n" is in "\r\n\r\n".
_NAME = re.compile(rb"[!-9;-~]+\Z")  # RFC 5322 §3.6.8 ftext
# A line that does not begin with white space, has a colon behind at least one other character, and all lines that continue it.
_FIELD = re.compile(rb"^([^\s:][^:\n]*+):[^\n]*+(?:\n[ \t][^\n]*+)*+\n?", re.MULTILINE)
# What no field value that we write may hold: line breaks as bytes or as Unicode sees them (str.splitlines), and other controls.
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f\x80-\x9f\u2028\u2029]")
_UNSAFE_OR_8BIT = re.compile("[^\t\x20-\x7e]")
_LOOKS_ENCODED = re.compile(r"=\?[^? ]+\?[bBqQ]\?")

ValueTest = Callable[[bytes], bool]


class UnsafeHeaderError(ValueError):
    """A field name or value that would make another header field, or is none."""


class Field(NamedTuple):
    """One header field and where it is, in bytes from the message's start."""

    name: bytes  # lower case, without trailing white space
    start: int
    value_start: int  # after the colon
    end: int  # exclusive, with its line break and all its continuation lines


def body_offset(raw: bytes, start: int = 0, end: int | None = None) -> int:
    """Where the body begins of the message or part in [start, end): after the first empty line, or `end` when there is none."""
    if end is None:
        end = len(raw)
    if raw.startswith(b"\r\n", start, end):
        return start + 2
    if raw.startswith(b"\n", start, end):
        return start + 1
    crlf = raw.find(b"\n\r\n", start, end)
    bare = raw.find(b"\n\n", start, crlf + 1 if crlf >= 0 else end)
    if bare >= 0:
        return bare + 2
    return crlf + 3 if crlf >= 0 else end


def fields(raw: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the header section in [start, end) (`end`: see `body_offset`), in order.

    A line that has no colon and continues nothing is no field and is passed over.
    """
    if end is None:
        end = body_offset(raw, start)
    for match in _FIELD.finditer(raw, start, end):
        yield Field(match[1].rstrip(b" \t").lower(), match.start(), match.end(1) + 1, match.end())


def collect(block: bytes, wanted: Collection[bytes]) -> dict[bytes, list[bytes]]:
    """Values of the `wanted` fields (lower-case names) of a header section: unfolded (see `unfold`), outer white space removed."""
    block = block.replace(b"\r\n", b"\n").replace(b"\n ", b" ").replace(b"\n\t", b" ")
    if b"\r" in block:
        block = block.replace(b"\r", b" ")
    found: dict[bytes, list[bytes]] = {}
    for line in block.split(b"\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if name not in wanted:
            name = name.rstrip(b" \t")  # obs-optional: white space before the colon (RFC 5322 §4.5.8)
            if name not in wanted:
                continue
        if colon:
            values = found.get(name)
            if values is None:
                found[name] = [value.strip(b" \t")]
            else:
                values.append(value.strip(b" \t"))
    return found


def unfold(value: bytes) -> bytes:
    """A field's value on one line (RFC 5322 §2.2.3): line breaks before white space go, others become a space.

    The tab with which old programs fold is a space too: nobody meant it as text.
    """
    if b"\n" in value or b"\r" in value:
        value = value.replace(b"\r\n", b"\n").replace(b"\n ", b" ").replace(b"\n\t", b" ").replace(b"\n", b" ").replace(b"\r", b" ")
    return value.strip(b" \t")


def values(raw: bytes, name: bytes, start: int = 0, end: int | None = None) -> list[bytes]:
    """All values of field `name` (lower case), unfolded, in order."""
    if end is None:
        end = body_offset(raw, start)
    return collect(raw[start:end], (name,)).get(name, [])


def select(raw: bytes, names: Collection[bytes], *, start: int = 0, end: int | None = None, inverted: bool = False) -> bytes:
    """Those fields whose name is (inverted: is not) one of `names`, byte for byte, and an empty line.

    RFC 9051 §6.4.5, HEADER.FIELDS and HEADER.FIELDS.NOT; names are compared without case.
    """
    wanted = {name.lower() for name in names}
    chosen = [raw[field.start : field.end] for field in fields(raw, start, end) if (field.name in wanted) is not inverted]
    if chosen and not chosen[-1].endswith(b"\n"):
        chosen.append(b"\r\n")
    chosen.append(b"\r\n")
    return b"".join(chosen)


def remove(raw: bytes, names: Collection[bytes]) -> bytes:
    """The message without the fields of `names` (lower case), everything else byte for byte; `raw` itself when there are none."""
    return remove_where(raw, names, lambda value: True)


def remove_where(raw: bytes, names: Collection[bytes], matches: ValueTest) -> bytes:
    """The same for those fields only whose unfolded value satisfies `matches`."""
    end = body_offset(raw)
    head = raw[:end].lower()
    if not any(name in head for name in names):
        return raw
    kept: list[bytes] = []
    position = 0
    for field in fields(raw, 0, end):
        if field.name in names and matches(unfold(raw[field.value_start : field.end])):
            kept.append(raw[position : field.start])
            position = field.end
    if not position:
        return raw
    kept.append(raw[position:])
    return b"".join(kept)


def remove_authentication_results(raw: bytes, authserv_ids: Collection[str]) -> bytes:
    """Without those Authentication-Results that claim to be ours (RFC 8601 §5): authserv-id is one of `authserv_ids`, in any case."""
    ours = {name.lower() for name in authserv_ids}

    def forged(value: bytes) -> bool:
        return authserv_id(value) in ours

    return remove_where(raw, (b"authentication-results", b"arc-authentication-results"), forged)


def authserv_id(value: bytes) -> str:
    """Who claims to have made an Authentication-Results field (RFC 8601 §2.2), lower case; "" when it does not say."""
    text = strip_comments(value.decode("utf-8", "replace")).strip()
    if text.startswith("i=") or text[:2].lower() == "i=":  # RFC 8617 §4.1.1: ARC's instance comes first
        text = text.partition(";")[2].strip()
    if text.startswith('"'):
        return text[1:].partition('"')[0].lower()
    match = re.match(r"[^\s;]+", text)
    return match[0].lower().rstrip(".") if match else ""


def strip_comments(text: str) -> str:
    """`text` without its comments (RFC 5322 §3.2.2), nested ones too; quoted strings are left alone."""
    if "(" not in text:
        return text
    kept: list[str] = []
    depth = position = 0
    quoted = False
    for match in re.finditer(r'\\.|["()]', text, re.DOTALL):
        sign = match[0]
        if sign == '"' and depth == 0:
            quoted = not quoted
        elif sign == "(" and not quoted:
            if depth == 0:
                kept.append(text[position : match.start()])
            depth += 1
        elif sign == ")" and not quoted and depth:
            depth -= 1
            if depth == 0:
                position = match.end()
                kept.append(" ")
    if depth == 0:
        kept.append(text[position:])
    return "".join(kept)


def format_field(name: str, value: str) -> bytes:
    """One field ready to stand in a header: `name: value` CRLF, folded; text that is not plain ASCII becomes encoded words (RFC 2047).

    Raises `UnsafeHeaderError` when `name` is no field name. A value can never make a second field: every line break and control, also those
    that only Unicode knows, ends up inside an encoded word.
    """
    if not _NAME.match(name.encode("utf-8", "replace")):
        raise UnsafeHeaderError(f"not a header field name: {name!r}")
    value = value.strip(" \t")
    if _UNSAFE_OR_8BIT.search(value) or _LOOKS_ENCODED.search(value):
        value = encode_words(value)
    return fold(f"{name}: {value}".encode("ascii")) + b"\r\n"


def format_structured(name: str, value: bytes) -> bytes:
    """The same for a value that is already in its wire form, as it is (UTF-8 allowed, RFC 6532 §3).

    Raises `UnsafeHeaderError` when the value could begin another field or end the header.
    """
    if not _NAME.match(name.encode("utf-8", "replace")):
        raise UnsafeHeaderError(f"not a header field name: {name!r}")
    if _UNSAFE.search(value.decode("utf-8", "replace")):
        raise UnsafeHeaderError(f"line break or control character in {name}")
    return fold(name.encode("ascii") + b": " + value) + b"\r\n"


def encode_words(text: str) -> str:
    """`text` as encoded words in UTF-8 and base64 (RFC 2047 §2: at most 75 characters each, whole characters in each)."""
    words: list[str] = []
    chunk = b""
    for char in text:
        piece = char.encode("utf-8", "replace")
        if len(chunk) + len(piece) > 42:  # 56 characters of base64 and 12 around them; 42 is a multiple of 3
            words.append(f"=?utf-8?B?{base64.b64encode(chunk).decode('ascii')}?=")
            chunk = b""
        chunk += piece
    if chunk:
        words.append(f"=?utf-8?B?{base64.b64encode(chunk).decode('ascii')}?=")
    return " ".join(words)


def fold(line: bytes) -> bytes:
    """A field broken before white space into lines of at most 78 bytes where possible (RFC 5322 §2.2.3), without CRLF at its end."""
    if len(line) <= limits.HEADER_LINE_BYTES:
        return line
    lines: list[bytes] = []
    current = b""
    for word in re.findall(rb"[ \t]*[^ \t]+", line):
        if current and len(current) + len(word) > limits.HEADER_LINE_BYTES and (lines or b":" in current) and word[:1] in b" \t":
            lines.append(current)
            current = word
        else:
            current += word
    lines.append(current)
    return b"\r\n".join(lines)

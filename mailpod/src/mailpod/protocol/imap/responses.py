"""Every line that the server sends, as bytes with its CRLF. Callers give decoded values; quoting is decided here.

`utf8` parameters: whether the client has enabled UTF8=ACCEPT or IMAP4rev2, so that names and strings may be UTF-8 in quotes
(RFC 9755 §3, RFC 9051 §5.1); without it names are modified UTF-7 and 8-bit text is a literal.
Response codes are given without brackets, as made by the `code_…` functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mailpod.limits.imap import RESPONSE_TEXT_BYTES_MAX
from mailpod.protocol.imap import mutf7
from mailpod.protocol.imap.cells import Numbers
from mailpod.protocol.imap.dates import format_internaldate
from mailpod.protocol.imap.render import render_numbers
from mailpod.protocol.imap.sequence_set import encode_numbers

# Strings (RFC 9051 §9)

_ATOM = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~\[]+")  # ATOM-CHAR; "[" is allowed, "]" only in astring
_ASTRING = re.compile(rb"[!#$&'+,\-./0-9:;<=>?@A-Z^_`a-z|}~\[\]]+")
_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")
_QUOTABLE_UTF8 = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\xff]*")
_NOT_TEXT = re.compile(r"[^\x20-\x7e]+")


def quoted(value: bytes) -> bytes:
    """A quoted string. The caller has made sure that it holds no CR, LF or NUL."""
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def literal(value: bytes) -> bytes:
    """`{n}` CRLF and the bytes."""
    return b"{%d}\r\n" % len(value) + value


def string(value: str | bytes, utf8: bool = False) -> bytes:
    """Quoted where that can carry the value, else a literal; a literal8 when it holds NUL."""
    raw = value.encode() if isinstance(value, str) else value
    if (_QUOTABLE_UTF8 if utf8 else _QUOTABLE).fullmatch(raw) and (not utf8 or raw.isascii() or _is_utf8(raw)) and len(raw) <= 1000:
        return quoted(raw)
    return b"~" + literal(raw) if b"\0" in raw else literal(raw)


def nstring(value: str | bytes | None, utf8: bool = False) -> bytes:
    """A string, or NIL for None."""
    return b"NIL" if value is None else string(value, utf8)


def astring(value: str | bytes, utf8: bool = False) -> bytes:
    """An atom where the value is one, else a string. `NIL` is quoted."""
    raw = value.encode() if isinstance(value, str) else value
    if _ASTRING.fullmatch(raw) and raw.upper() != b"NIL":
        return raw
    return string(raw, utf8)


def mailbox(name: str, utf8: bool) -> bytes:
    """A mailbox name: an atom, or quoted, or a literal where it is 8-bit and may not be quoted."""
    return astring(name.encode() if utf8 else mutf7.encode(name), utf8)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


# Status responses (RFC 9051 §7.1)


def tagged(tag: str, status: str, text: str, code: str = "") -> bytes:
    """`A1 OK [CODE] text`. `status` is OK, NO or BAD."""
    bracket = f"[{code}] " if code else ""
    return f"{tag} {status} {bracket}{plain(text)}\r\n".encode("utf-8", "replace")


def untagged(status: str, text: str, code: str = "") -> bytes:
    """`* OK [CODE] text`. `status` is OK, NO, BAD, BYE or PREAUTH."""
    return tagged("*", status, text, code)


def bye(text: str, code: str = "") -> bytes:
    """`* BYE text`."""
    return tagged("*", "BYE", text, code)


def continuation(text: str = "OK") -> bytes:
    """`+ text`: send the literal, or idle (RFC 9051 §7.6)."""
    return b"+ " + plain(text).encode() + b"\r\n"


def plain(text: str) -> str:
    """`text` made safe for a status response: printable ASCII, bounded, never empty, not beginning like a code."""
    text = _NOT_TEXT.sub("?", text)[:RESPONSE_TEXT_BYTES_MAX].strip() or "-"
    return "-" + text if text.startswith("[") else text


# Response codes


def code_capability(capabilities: Iterable[str]) -> str:
    """CAPABILITY IMAP4rev1 …"""
    return "CAPABILITY " + " ".join(capabilities)


def code_appenduid(uidvalidity: int, uids: Numbers | Sequence[int]) -> str:
    """APPENDUID (RFC 4315 §3)."""
    return f"APPENDUID {uidvalidity} {encode_numbers(np.asarray(uids, np.int64)).decode()}"


def code_copyuid(uidvalidity: int, uids: Numbers, new_uids: Numbers) -> str:
    """COPYUID (RFC 4315 §3): the two sets correspond one to one, so both are ascending."""
    return f"COPYUID {uidvalidity} {encode_numbers(uids).decode()} {encode_numbers(new_uids).decode()}"


def code_permanentflags(flags: Iterable[str], new_keywords: bool) -> str:
    """PERMANENTFLAGS, with \\* when keywords may be made."""
    return "PERMANENTFLAGS (" + " ".join([*flags, *(["\\*"] if new_keywords else [])]) + ")"


def code_modified(numbers: Numbers) -> str:
    """MODIFIED (RFC 7162 §3.1.3): sequence numbers, or UIDs for UID STORE."""
    return "MODIFIED " + encode_numbers(numbers).decode()


def code_badcharset(charsets: Iterable[str] = ("US-ASCII", "UTF-8")) -> str:
    """BADCHARSET."""
    return "BADCHARSET (" + " ".join(charsets) + ")"


def code_mailboxid(mailbox_id: str) -> str:
    """MAILBOXID (RFC 8474 §4.1)."""
    return f"MAILBOXID ({mailbox_id})"


# Server and mailbox data (RFC 9051 §7.2, §7.3)


def capability(capabilities: Iterable[str]) -> bytes:
    """`* CAPABILITY …`"""
    return ("* CAPABILITY " + " ".join(capabilities) + "\r\n").encode()


def enabled(capabilities: Iterable[str]) -> bytes:
    """`* ENABLED …`; with nothing enabled the line still comes (RFC 5161 §3.1)."""
    return (" ".join(["* ENABLED", *capabilities]) + "\r\n").encode()


def id_(params: Mapping[str, str | None] | None) -> bytes:
    """`* ID (…)` or NIL (RFC 2971)."""
    if not params:
        return b"* ID NIL\r\n"
    return b"* ID (" + b" ".join(string(key) + b" " + nstring(value) for key, value in params.items()) + b")\r\n"


def namespace(prefix: str, separator: str) -> bytes:
    """One personal namespace, no others (RFC 2342)."""
    return b"* NAMESPACE ((" + string(prefix) + b" " + string(separator) + b")) NIL NIL\r\n"


def list_(
    attributes: Iterable[str],
    separator: str | None,
    name: str,
    utf8: bool,
    *,
    childinfo: Sequence[str] = (),
    oldname: str | None = None,
) -> bytes:
    """`* LIST (…) "/" name`, with CHILDINFO (RFC 5258 §3.5) and OLDNAME (RFC 9051 §6.3.9.7) where given."""
    return _listed(b"LIST", attributes, separator, mailbox(name, utf8), _list_extra(childinfo, oldname, utf8))


def list_separator(separator: str) -> bytes:
    """The answer to LIST "" "" (RFC 9051 §6.3.9)."""
    return _listed(b"LIST", ("\\Noselect",), separator, b'""', b"")


def lsub(attributes: Iterable[str], separator: str | None, name: str, utf8: bool) -> bytes:
    """`* LSUB …` (RFC 3501 §7.2.3)."""
    return _listed(b"LSUB", attributes, separator, mailbox(name, utf8), b"")


def _listed(kind: bytes, attributes: Iterable[str], separator: str | None, name: bytes, extra: bytes) -> bytes:
    shown = b"NIL" if separator is None else quoted(separator.encode())
    return b"* %b (%b) %b %b%b\r\n" % (kind, " ".join(attributes).encode(), shown, name, extra)


def _list_extra(childinfo: Sequence[str], oldname: str | None, utf8: bool) -> bytes:
    items = []
    if childinfo:
        items.append(b'"CHILDINFO" (' + b" ".join(string(option) for option in childinfo) + b")")
    if oldname is not None:
        items.append(b'"OLDNAME" (' + mailbox(oldname, utf8) + b")")
    return b" (" + b" ".join(items) + b")" if items else b""


def status(name: str, items: Iterable[tuple[str, int | str | None]], utf8: bool) -> bytes:
    """`* STATUS name (MESSAGES 3 …)`. A `str` value is an object id, sent in parentheses; None is NIL."""
    shown = " ".join(f"{item} {_status_value(value)}" for item, value in items)
    return b"* STATUS " + mailbox(name, utf8) + b" (" + shown.encode() + b")\r\n"


def _status_value(value: int | str | None) -> str:
    if value is None:
        return "NIL"
    return f"({value})" if isinstance(value, str) else str(value)


def flags(names: Iterable[str]) -> bytes:
    """`* FLAGS (…)`"""
    return ("* FLAGS (" + " ".join(names) + ")\r\n").encode()


def exists(count: int) -> bytes:
    """`* n EXISTS`"""
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    """`* n RECENT` (RFC 3501 §7.3.2)."""
    return b"* %d RECENT\r\n" % count


def vanished(uids: Numbers, earlier: bool = False) -> bytes:
    """`* VANISHED [(EARLIER)] uids` (RFC 7162 §3.2.10); nothing for none."""
    if not len(uids):
        return b""
    return b"* VANISHED " + (b"(EARLIER) " if earlier else b"") + encode_numbers(uids) + b"\r\n"


def quota(root: str, resources: Iterable[tuple[str, int, int]]) -> bytes:
    """`* QUOTA root (STORAGE used limit …)`; STORAGE counts in units of 1024 bytes (RFC 9208 §5.1)."""
    shown = " ".join(f"{name} {used} {limit}" for name, used, limit in resources)
    return b"* QUOTA " + _quota_root(root) + b" (" + shown.encode() + b")\r\n"


def quotaroot(name: str, roots: Iterable[str], utf8: bool) -> bytes:
    """`* QUOTAROOT mailbox root …`"""
    return b" ".join([b"* QUOTAROOT", mailbox(name, utf8), *(_quota_root(root) for root in roots)]) + b"\r\n"


def _quota_root(root: str) -> bytes:
    return b'""' if root == "" else astring(root)


# Search results (RFC 9051 §7.3.4, RFC 3501 §7.2.5, RFC 5256)


def search(numbers: Numbers, modseq: int | None = None) -> bytes:
    """`* SEARCH 2 3 6 (MODSEQ n)`; with nothing found the line is there all the same, without MODSEQ (RFC 7162 §3.1.5)."""
    return _numbers_line(b"* SEARCH", numbers, modseq)


def sort(numbers: Numbers, modseq: int | None = None) -> bytes:
    """`* SORT 2 3 6 (MODSEQ n)`."""
    return _numbers_line(b"* SORT", numbers, modseq)


def _numbers_line(label: bytes, numbers: Numbers, modseq: int | None) -> bytes:
    modseq_shown = b" (MODSEQ %d)" % modseq if modseq is not None and len(numbers) else b""
    return b"".join([*render_numbers(label, numbers), modseq_shown, b"\r\n"])


def esearch(
    tag: str,
    uid: bool,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    count: int | None = None,
    all_: Numbers | None = None,
    modseq: int | None = None,
) -> bytes:
    """`* ESEARCH (TAG "A1") UID MIN 2 …` (RFC 4466 §2.6.2, RFC 4731 §3.1). What is None, and an empty `all_`, is left out."""
    line = b"* ESEARCH (TAG " + string(tag) + b")" + (b" UID" if uid else b"")
    for name, value in ((b"MIN", minimum), (b"MAX", maximum), (b"COUNT", count)):
        if value is not None:
            line += b" %b %d" % (name, value)
    if all_ is not None and len(all_):
        line += b" ALL " + encode_numbers(all_)
    if modseq is not None:
        line += b" MODSEQ %d" % modseq
    return line + b"\r\n"


ThreadNode = tuple[int, "Sequence[ThreadNode]"]
"""A message's number (0 where the thread's parent is missing) and its children."""


def thread(roots: Sequence[ThreadNode]) -> bytes:
    """`* THREAD (2)(3 6 (4 23)(44 7 96))` (RFC 5256 §4). Iterative: threads may be as deep as there are messages."""
    out: list[str] = []
    stack: list[ThreadNode | str] = []
    for root in reversed(roots):
        stack += (")", root, "(")
    after_number = False
    while stack:
        entry = stack.pop()
        if isinstance(entry, str):
            out.append(" (" if after_number and entry == "(" else entry)
            after_number = False
            continue
        number, children = entry
        if number:
            out.append(f" {number}" if after_number else str(number))
            after_number = True
        if len(children) == 1:
            stack.append(children[0])
        else:
            for child in reversed(children):
                stack += (")", child, "(")
    return ("* THREAD " + "".join(out) if out else "* THREAD").encode() + b"\r\n"


# FETCH (RFC 9051 §7.5.2): a line is `fetch_line(seq, items)`, each item made by one of the `item_…` functions


def fetch_line(seq: int, items: Sequence[bytes]) -> bytes:
    """`* seq FETCH (item item …)`. For large bodies use `fetch_chunks`."""
    return b"* %d FETCH (%b)\r\n" % (seq, b" ".join(items))


def fetch_chunks(seq: int, items: Sequence[bytes | tuple[bytes, bytes]]) -> list[bytes]:
    """The same without copying bodies: an item may be (what goes before the body, body) as `item_literal_parts` gives it."""
    out: list[bytes] = []
    head = b"* %d FETCH (" % seq
    for item in items:
        if isinstance(item, bytes):
            head += item
        else:
            out += (head + item[0], item[1])
            head = b""
        head += b" "
    out.append(head[:-1] + b")\r\n" if items else head + b")\r\n")
    return out


def item_uid(uid: int) -> bytes:
    """UID n"""
    return b"UID %d" % uid


def item_flags(names: Iterable[str]) -> bytes:
    """FLAGS (…)"""
    return ("FLAGS (" + " ".join(names) + ")").encode()


def item_modseq(modseq: int) -> bytes:
    """MODSEQ (n) (RFC 7162)"""
    return b"MODSEQ (%d)" % modseq


def item_size(octets: int) -> bytes:
    """RFC822.SIZE n"""
    return b"RFC822.SIZE %d" % octets


def item_internaldate(seconds: int) -> bytes:
    """INTERNALDATE "…" in UTC; `seconds` since 1970-01-01 UTC"""
    return b"INTERNALDATE " + quoted(format_internaldate(seconds))


def item_savedate(seconds: int | None) -> bytes:
    """SAVEDATE "…" or NIL (RFC 8514)"""
    return b"SAVEDATE NIL" if seconds is None else b"SAVEDATE " + quoted(format_internaldate(seconds))


def item_emailid(email_id: str) -> bytes:
    """EMAILID (id) (RFC 8474)"""
    return b"EMAILID (" + email_id.encode() + b")"


def item_threadid(thread_id: str | None) -> bytes:
    """THREADID (id) or NIL (RFC 8474)"""
    return b"THREADID NIL" if thread_id is None else b"THREADID (" + thread_id.encode() + b")"


def item_preview(preview: str | None, utf8: bool) -> bytes:
    """PREVIEW "…", or NIL where LAZY and none at hand (RFC 8970)"""
    return b"PREVIEW " + nstring(preview, utf8)


def item_raw(label: bytes, value: bytes) -> bytes:
    """An item whose value is in wire form already: ENVELOPE, BODY, BODYSTRUCTURE."""
    return label + b" " + value


def item_literal(label: bytes, value: bytes | None, binary: bool = False) -> bytes:
    """A body section as a literal (literal8 when `binary` and it holds NUL, RFC 3516 §4.2), or NIL where there is no such part."""
    return b"".join(item_literal_parts(label, value, binary))


def item_literal_parts(label: bytes, value: bytes | None, binary: bool = False) -> tuple[bytes, bytes]:
    """The same in two pieces, for `fetch_chunks` and writelines."""
    if value is None:
        return label + b" NIL", b""
    tilde = b"~" if binary and b"\0" in value else b""
    return label + b" %b{%d}\r\n" % (tilde, len(value)), value


def item_literal_head(label: bytes, size: int) -> bytes:
    """What goes before a body of `size` bytes that is streamed."""
    return label + b" {%d}\r\n" % size


def item_binary_size(label: bytes, octets: int) -> bytes:
    """BINARY.SIZE[1] n"""
    return label + b" %d" % octets

"""Writing: trace fields (RFC 5321 §4.4), the repair of submitted mail (RFC 6409 §8), delivery status notifications (RFC 3464).

Whatever comes from outside can fill a field, and never begin another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from mailpod.limits import message as limits
from mailpod.message.headers import body_offset, encode_words, fields, fold, format_field, format_structured, remove

_NOT_A_WORD = re.compile(r"[^A-Za-z0-9._:@+=,\[\]-]")
_BREAKS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]+")
_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=?-]{1,70}\Z")


def received(
    *,
    helo: str,
    client_ip: str,
    client_name: str = "",
    by: str,
    protocol: str,
    message_id: str,
    date: str,
    recipient: str = "",
    tls: str = "",
) -> bytes:
    """A Received field. `recipient` only when there is one (RFC 5321 §7.6); `tls`: version and cipher for a comment."""
    literal = f"IPv6:{_word(client_ip)}" if ":" in client_ip else _word(client_ip)
    name = f"{_word(client_name)} " if client_name else ""
    text = f"Received: from {_word(helo)} ({name}[{literal}])\r\n\tby {_word(by)} with {_word(protocol)}"
    if tls:
        text += f" ({_BREAKS.sub(' ', tls).replace('(', ' ').replace(')', ' ')})"
    text += f" id {_word(message_id)}"
    if recipient:
        text += f"\r\n\tfor <{_BREAKS.sub('?', recipient)}>"
    return f"{text};\r\n\t{_BREAKS.sub(' ', date)}\r\n".encode("utf-8", "replace")


def return_path(address: str) -> bytes:
    """RFC 5321 §4.4; "" for the null reverse-path."""
    return format_structured("Return-Path", f"<{address}>".encode("utf-8", "replace"))


def delivered_to(address: str) -> bytes:
    """RFC 9228 §2."""
    return format_structured("Delivered-To", address.encode("utf-8", "replace"))


def _word(text: str) -> str:
    """One atom-like word of a trace field; what does not belong there becomes "?"."""
    return _NOT_A_WORD.sub("?", text) or "unknown"


def fix_submission(raw: bytes, *, date: str, message_id: str) -> bytes:
    """Our users' mail made complete (RFC 6409 §8): Date and Message-ID where they are missing, Bcc taken out (RFC 5322 §3.6.3).

    `message_id` without angle brackets. A message that lacks nothing is returned as it is.
    """
    raw = remove(raw, (b"bcc", b"resent-bcc"))
    names = {field.name for field in fields(raw) if raw[field.value_start : field.end].strip()}
    added = b""
    if b"date" not in names:
        raw = remove(raw, (b"date",))
        added += format_structured("Date", date.encode("ascii", "replace"))
    if b"message-id" not in names:
        raw = remove(raw, (b"message-id",))
        added += format_structured("Message-ID", f"<{message_id}>".encode("ascii", "replace"))
    if not added:
        return raw
    if body_offset(raw) == len(raw) and not raw.endswith(b"\n") and raw:
        return added + raw + b"\r\n"
    return added + raw


class DsnRecipient(NamedTuple):
    """What became of one recipient (RFC 3464 §2.3)."""

    address: str
    action: str  # "failed", "delayed", "delivered", "relayed", "expanded"
    status: str  # RFC 3463: "5.1.1"
    diagnostic: str = ""  # the other side's reply, "550 5.1.1 …"; "" when it is our own
    remote_mta: str = ""  # who said so
    original_recipient: str = ""  # ORCPT (RFC 3461 §4.2): "rfc822;alice@example.com"


class Dsn(NamedTuple):
    """A delivery status notification to be written."""

    reporting_mta: str  # host name
    from_: str  # "Mail Delivery System <postmaster@example.com>", ASCII
    to: str  # the message's reverse-path
    subject: str
    date: str  # RFC 5322 §3.3
    message_id: str  # without brackets
    boundary: str  # from randomness, so that it is in no message
    text: str  # for people
    recipients: Sequence[DsnRecipient]
    original: bytes  # the message; its header alone is returned
    envelope_id: str = ""  # ENVID (RFC 3461 §4.4)
    arrival_date: str = ""


def build_dsn(dsn: Dsn) -> bytes:
    """A multipart/report (RFC 6522) of text, message/delivery-status and the original's header. Send it from the null reverse-path.

    Raises ValueError when the boundary is none, and `UnsafeHeaderError` when an address or a name holds a line break.
    """
    if not _BOUNDARY.match(dsn.boundary):
        raise ValueError("not a MIME boundary")
    header = dsn.original[: min(body_offset(dsn.original), limits.DSN_RETURNED_BYTES_MAX)]
    header = header[: header.rfind(b"\n") + 1]
    utf8 = not (dsn.to.isascii() and header.isascii() and all(one.address.isascii() for one in dsn.recipients))
    text = dsn.text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n").encode("utf-8", "replace")
    edge = b"--" + dsn.boundary.encode("ascii") + b"\r\n"
    returned = b"message/global-headers" if utf8 else b"text/rfc822-headers"  # RFC 6533 §4.3
    status = b"message/global-delivery-status" if utf8 else b"message/delivery-status"
    eight = b"Content-Transfer-Encoding: 8bit\r\n"
    return b"".join(
        (
            format_structured("From", dsn.from_.encode("utf-8", "replace")),
            format_structured("To", f"<{dsn.to}>".encode("utf-8", "replace")),
            format_field("Subject", dsn.subject),
            format_structured("Date", dsn.date.encode("ascii", "replace")),
            format_structured("Message-ID", f"<{dsn.message_id}>".encode("ascii", "replace")),
            b"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n",  # RFC 3834 §5.1: nobody answers it automatically
            b'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="' + dsn.boundary.encode("ascii") + b'"\r\n\r\n',
            edge + b"Content-Type: text/plain; charset=utf-8\r\n" + eight + b"\r\n" + text + b"\r\n",
            edge + b"Content-Type: " + status + b"\r\n" + (eight if utf8 else b"") + b"\r\n",
            _per_message(dsn),
            *(_per_recipient(one, utf8=utf8) for one in dsn.recipients),
            edge + b"Content-Type: " + returned + b"\r\n" + eight + b"\r\n" + header.rstrip(b"\r\n") + b"\r\n",
            b"--" + dsn.boundary.encode("ascii") + b"--\r\n",
        )
    )


def _per_message(dsn: Dsn) -> bytes:
    """RFC 3464 §2.2."""
    out = format_structured("Reporting-MTA", f"dns; {_word(dsn.reporting_mta)}".encode("ascii", "replace"))
    if dsn.envelope_id:
        out = format_structured("Original-Envelope-Id", dsn.envelope_id.encode("ascii", "replace")) + out
    if dsn.arrival_date:
        out += format_structured("Arrival-Date", dsn.arrival_date.encode("ascii", "replace"))
    return out + b"\r\n"


def _per_recipient(one: DsnRecipient, *, utf8: bool) -> bytes:
    """RFC 3464 §2.3; addresses in UTF-8 by RFC 6533 §3."""
    kind = "utf-8" if utf8 and not one.address.isascii() else "rfc822"
    out = b""
    if one.original_recipient:
        out += format_structured("Original-Recipient", one.original_recipient.encode("utf-8", "replace"))
    out += format_structured("Final-Recipient", f"{kind}; {one.address}".encode("utf-8", "replace"))
    out += format_structured("Action", _word(one.action).encode("ascii"))
    out += format_structured("Status", _word(one.status).encode("ascii"))
    if one.remote_mta:
        out += format_structured("Remote-MTA", f"dns; {_word(one.remote_mta)}".encode("ascii"))
    if one.diagnostic:
        said = _BREAKS.sub(" ", one.diagnostic)[:900]
        if not said.isascii():
            said = encode_words(said)
        out += fold(f"Diagnostic-Code: smtp; {said}".encode("ascii")) + b"\r\n"
    return out + b"\r\n"

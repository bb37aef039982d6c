"""From a message's bytes to its `Summary`: everything that listing, sorting, threading and searching a folder needs."""

from __future__ import annotations

import re

import msgspec

from mailpod.limits import message as limits
from mailpod.message.addresses import display, sort_key
from mailpod.message.dates import parse_date
from mailpod.message.envelope import build_envelope
from mailpod.message.scan import Fields, parts, scan
from mailpod.message.structure import build_structure
from mailpod.message.subject import base_subject
from mailpod.message.summary import Summary
from mailpod.message.text import preview
from mailpod.message.words import decode_8bit, decode_words

_MESSAGE_ID = re.compile(rb"<([^<>\s]{1,998})>")
_SPACES = re.compile(r"[ \t\r\n]+")


def summarize(raw: bytes) -> Summary:
    """The summary of any bytes; never fails, and costs no more than `limits.message` allows."""
    tree = scan(raw)
    root = tree.root
    found = root.fields
    flat = parts(tree)
    envelope = build_envelope(found)
    structure = build_structure(tree)
    subject = _subject(found)
    base = base_subject(subject)
    date = found.get(b"date")
    sent = parse_date(date[0]) if date else None
    return Summary(
        envelope=envelope.wire.encode("latin-1"),
        bodystructure=structure.bodystructure.encode("latin-1"),
        body=structure.body.encode("latin-1"),
        parts=flat,
        header_size=root.body_start,
        preview=preview(raw, flat),
        subject=subject,
        base_subject=base.text,
        from_=sort_key(envelope.from_),
        to=sort_key(envelope.to),
        cc=sort_key(envelope.cc),
        sent_at=sent.seconds if sent else 0,
        message_id=_message_id(found),
        references=_references(found),
        is_reply=base.is_reply,
        from_text=_display(found, b"from"),
        to_text=_display(found, b"to"),
        cc_text=_display(found, b"cc"),
        bcc_text=_display(found, b"bcc"),
        sent_zone_minutes=sent.zone_minutes if sent else 0,
    )


def behind_prefix(summary: Summary, prefix_bytes: int) -> Summary:
    """The summary of the same message with `prefix_bytes` of trace fields put before it (Return-Path, Delivered-To, Received, …).

    No field of the summary depends on those, so only offsets move: one scan serves all recipients of a message.
    """
    if not prefix_bytes:
        return summary
    moved = [
        msgspec.structs.replace(
            part,
            header_start=part.header_start + prefix_bytes if index else 0,
            body_start=part.body_start + prefix_bytes,
            body_end=part.body_end + prefix_bytes,
        )
        for index, part in enumerate(summary.parts)
    ]
    return msgspec.structs.replace(summary, parts=tuple(moved), header_size=summary.header_size + prefix_bytes)


def _subject(found: Fields) -> str:
    values = found.get(b"subject")
    return decode_words(values[0])[: limits.SUBJECT_CHARS_MAX] if values else ""


def _display(found: Fields, name: bytes) -> str:
    values = found.get(name)
    if not values:
        return ""
    return display(values[0] if len(values) == 1 else b", ".join(values))


def _message_id(found: Fields) -> str:
    values = found.get(b"message-id")
    if not values or not values[0]:
        return ""
    match = _MESSAGE_ID.search(values[0])
    if match is not None:
        return decode_8bit(match[1])
    return decode_8bit(values[0][: limits.MESSAGE_ID_BYTES_MAX].strip(b"<> \t").split(b" ")[0])


def _references(found: Fields) -> tuple[str, ...]:
    """RFC 5256 §3, REFERENCES: the ids of References, else the first of In-Reply-To; of very many the first and the newest."""
    values = found.get(b"references")
    ids = _MESSAGE_ID.findall(b" ".join(values)) if values else []
    if not ids:
        values = found.get(b"in-reply-to")
        ids = _MESSAGE_ID.findall(values[0])[:1] if values else []
    if len(ids) > limits.REFERENCES_MAX:
        ids = ids[:1] + ids[1 - limits.REFERENCES_MAX :]
    return tuple([decode_8bit(one) for one in ids])

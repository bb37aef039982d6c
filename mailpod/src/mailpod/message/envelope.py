"""IMAP ENVELOPE (RFC 9051 §7.5.2) from a message header's fields. Texts are bytes as Latin-1 characters until the whole is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mailpod.message.addresses import Address, parse_addresses
from mailpod.message.nstring import latin, nstring

ADDRESS_FIELDS = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")


class Envelope(NamedTuple):
    """The wire form, and the addresses that were read for it."""

    wire: str  # with parentheses; bytes as Latin-1 characters
    from_: list[Address]
    to: list[Address]
    cc: list[Address]
    bcc: list[Address]


def build_envelope(fields: Mapping[bytes, list[bytes]]) -> Envelope:
    """`fields`: unfolded values by lower-case name (`headers.collect`). A field that is there more than once: addresses are
    put together, of other fields the first counts."""
    lists = [_addresses(fields.get(name)) for name in ADDRESS_FIELDS]
    from_, sender, reply_to, to, cc, bcc = lists
    rendered_from = render_addresses(from_)
    wire = " ".join(
        (
            _first(fields, b"date"),
            _first(fields, b"subject"),
            rendered_from,
            # RFC 9051 §7.5.2: absent or empty Sender and Reply-To are From
            render_addresses(sender) if sender else rendered_from,
            render_addresses(reply_to) if reply_to else rendered_from,
            render_addresses(to),
            render_addresses(cc),
            render_addresses(bcc),
            _first(fields, b"in-reply-to"),
            _first(fields, b"message-id"),
        )
    )
    return Envelope(f"({wire})", from_, to, cc, bcc)


def _first(fields: Mapping[bytes, list[bytes]], name: bytes) -> str:
    found = fields.get(name)
    return nstring(latin(found[0])) if found else "NIL"


def _addresses(found: list[bytes] | None) -> list[Address]:
    if found is None:
        return []
    if len(found) == 1:
        return parse_addresses(found[0])
    return parse_addresses(b",".join(value for value in found if value))


def render_addresses(addresses: list[Address]) -> str:
    """An address list, NIL when it is empty. Group: `(NIL NIL "name" NIL)` … `(NIL NIL NIL NIL)`."""
    if not addresses:
        return "NIL"
    return (
        "("
        + "".join(f"({nstring(name)} {nstring(route)} {nstring(mailbox)} {nstring(host)})" for name, route, mailbox, host, _ in addresses)
        + ")"
    )

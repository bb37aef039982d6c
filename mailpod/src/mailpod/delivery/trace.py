"""Trace headers: Return-Path, Delivered-To, Received (RFC 5321 §4.4, RFC 9228)."""

from __future__ import annotations

from mailpod.delivery.envelope import Envelope, LocalRecipient
from mailpod.message import compose
from mailpod.message.dates import format_date
from mailpod.message.headers import format_structured
from mailpod.ports import Clock


class DateCache:
    """The current date-time, rendered once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._text = ""

    def now(self) -> tuple[float, str]:
        """Seconds since 1970-01-01 UTC, and the same as RFC 5322 date-time."""
        now = self._clock.now()
        if int(now) != self._second:
            self._second, self._text = int(now), format_date(now)
        return now, self._text


def received(envelope: Envelope, hostname: str, date: str) -> bytes:
    """The Received field (RFC 5321 §4.4). "for" only when there is one recipient: it would tell each of the others (§7.6)."""
    client = envelope.client
    return compose.received(
        helo=client.helo,
        client_ip=client.address,
        by=hostname,
        protocol=client.protocol,
        message_id=envelope.id,
        date=date,
        recipient=envelope.recipients[0].address if len(envelope.recipients) == 1 else "",
        tls=client.tls,
    )


def delivery_prefix(envelope: Envelope, recipient: LocalRecipient) -> bytes:
    """What stands above everything else in one recipient's copy.

    Delivered-To (RFC 9228) names the mailbox: a message that carries it already comes back in a loop. The address that the mail was sent
    to is kept beside it where it is another one, for who sorts by it.
    """
    lines = compose.return_path(envelope.reverse_path) + compose.delivered_to(recipient.mailbox.address)
    if recipient.address != recipient.mailbox.address:
        lines += format_structured("X-Original-To", recipient.address.encode())
    return lines

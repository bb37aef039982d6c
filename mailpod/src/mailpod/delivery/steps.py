"""The ordered steps between the end of data and the commit. Each may refuse the message, or change it; None goes on to the next.

A filter of a later day is a `Step` put in its place in one of the two lists at the end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from mailpod.delivery import reasons
from mailpod.delivery.envelope import Job
from mailpod.directory.directory import Directory
from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.message.addresses import parse_mailboxes
from mailpod.message.headers import authserv_id, fields
from mailpod.message.validate import validate


class Refuse(NamedTuple):
    """The verdict that ends a message's way. `detail` is for the log: no message text."""

    reason: Reason
    detail: str = ""


class Step(NamedTuple):
    """One step: its name in logs and traces, and what it does."""

    name: str
    run: Callable[[Job, Directory], Awaitable[Refuse | None]]


_RESULTS_FIELDS: Final = (b"authentication-results", b"arc-authentication-results")
# What only the last server may write (RFC 5321 §4.4), and what must not leave the author (RFC 5322 §3.6.3).
_NOT_FROM_AUTHORS: Final = frozenset({b"bcc", b"resent-bcc", b"return-path", b"delivered-to"})
_AUTHOR_FIELDS: Final = (b"from", b"sender", b"resent-from", b"resent-sender")


async def check_form(job: Job, directory: Directory) -> Refuse | None:
    """Lines, header and MIME structure within bounds; end of data that could mean two things to two servers is refused here."""
    problem = validate(job.raw, binary=job.envelope.binary)
    if problem is not None:
        return Refuse(problem)
    job.fields = list(fields(job.raw))
    ids = job.named(b"message-id")
    if ids:
        job.message_id = job.value(ids[0]).strip(b"<> \t").decode("ascii", "replace")[:250]
    return None


async def check_loop(job: Job, directory: Directory) -> Refuse | None:
    """RFC 5321 §6.3: too many Received fields, or (RFC 9228 §4) a Delivered-To of the very mailbox that the message is for."""
    hops = 0
    visited: set[bytes] = set()
    for one in job.fields:
        if one.name == b"received":
            hops += 1
        elif one.name == b"delivered-to":
            visited.add(job.value(one).strip(b"<> \t").lower())
    if hops > limits.RECEIVED_HEADERS_MAX:
        return Refuse(reasons.TOO_MANY_HOPS, f"{hops} Received fields")
    if visited:
        for recipient in job.envelope.recipients:
            if recipient.mailbox.address.encode() in visited:
                return Refuse(reasons.DELIVERY_LOOP, recipient.mailbox.address)
    return None


async def remove_forged_results(job: Job, directory: Directory) -> Refuse | None:
    """RFC 8601 §5: a result that claims to be ours and came from outside is not ours."""
    ours = job.hostname.lower()
    job.removed += [one for one in job.fields if one.name in _RESULTS_FIELDS and authserv_id(job.value(one)) == ours]
    return None


async def check_author(job: Job, directory: Directory) -> Refuse | None:
    """RFC 6409 §6.1: every address of From and Sender (and of their Resent- forms) belongs to who is logged in."""
    login = job.envelope.login
    assert login is not None, "submission without a login never gets here"
    if len(job.named(b"from")) != 1 or len(job.named(b"sender")) > 1:
        # RFC 5322 §3.6: exactly one From, at most one Sender; programs differ in which of several they show.
        return Refuse(reasons.FROM_UNREADABLE, "From missing or repeated")
    for one in job.fields:
        if one.name not in _AUTHOR_FIELDS:
            continue
        # Empty as well for every form in which programs disagree about whose address it is.
        authors = parse_mailboxes(job.value(one))
        if not authors:
            return Refuse(reasons.FROM_UNREADABLE, one.name.decode("ascii"))
        for mailbox in authors:
            if not directory.may_send_as(login, mailbox.local, mailbox.domain):
                return Refuse(reasons.FROM_NOT_OWNED, f"{one.name.decode('ascii')}: {mailbox.address}")
    return None


async def complete_header(job: Job, directory: Directory) -> Refuse | None:
    """RFC 6409 §8: Date and Message-ID are added where they are missing; Bcc goes, as it must (RFC 5322 §3.6.3)."""
    job.removed += [one for one in job.fields if one.name in _NOT_FROM_AUTHORS]
    if not job.named(b"date"):
        job.added.append(f"Date: {job.date}\r\n".encode())
    if not job.message_id:
        job.removed += job.named(b"message-id")  # there, and empty
        job.message_id = f"{job.envelope.id}.{job.entropy.bytes(8).hex()}@{job.hostname}"
        job.added.append(f"Message-ID: <{job.message_id}>\r\n".encode())
    return None


_FORM: Final = Step("form", check_form)
_LOOP: Final = Step("loop", check_loop)
_FORGED: Final = Step("forged-results", remove_forged_results)
_AUTHOR: Final = Step("author", check_author)
_COMPLETE: Final = Step("complete-header", complete_header)


def receive_steps() -> tuple[Step, ...]:
    """What mail from other servers goes through."""
    return (_FORM, _LOOP, _FORGED)


def submit_steps() -> tuple[Step, ...]:
    """What our own users' mail goes through."""
    return (_FORM, _LOOP, _AUTHOR, _COMPLETE, _FORGED)

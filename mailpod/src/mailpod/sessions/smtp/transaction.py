"""MAIL, RCPT, DATA, BDAT: one message's way from envelope to the delivery pipeline (RFC 5321 §3.3, RFC 3030)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from mailpod.contract import MailboxConfig
from mailpod.delivery import Delivered, Envelope, LocalRecipient, Refuse, find_recipient, open_recipient
from mailpod.delivery import reasons as delivery_reasons
from mailpod.delivery.envelope import Client
from mailpod.errors import MailError, Reason
from mailpod.limits import smtp as limits
from mailpod.message.mailboxes import Path, parse_path
from mailpod.protocol.smtp import (
    ChunkReader,
    DataReader,
    Fixed,
    MailCommand,
    Reply,
    fixed,
    parse_bdat,
    parse_mail,
    parse_rcpt,
)
from mailpod.protocol.smtp import reasons as syntax
from mailpod.protocol.smtp.commands import Body
from mailpod.sessions.smtp import reasons
from mailpod.sessions.smtp.shared import smtp_answer

if TYPE_CHECKING:
    from mailpod.sessions.smtp.session import SmtpSession

Answer = Reply | Fixed | Reason | Refuse | None
Result = Answer | Coroutine[Any, Any, Answer]

_SENDER_OK: Final = fixed(250, "2.1.0", "Sender ok")
_RECIPIENT_OK: Final = fixed(250, "2.1.5", "Recipient ok")
_START_DATA: Final = fixed(354, "", "End data with <CR><LF>.<CR><LF>")


class Transaction:
    """The state between MAIL and the end of the message."""

    __slots__ = ("body", "chunking", "chunks", "declared", "envelope", "failed", "held", "received", "tried")

    def __init__(self, envelope: Envelope, body: Body, declared: int) -> None:
        self.envelope = envelope
        self.body = body
        self.declared = declared  # bytes, by SIZE=; 0 when not said
        self.tried = 0  # RCPT commands
        self.chunking = False  # BDAT has begun
        self.chunks: list[bytes] = []
        self.received = 0  # bytes of content so far
        self.held = 0  # bytes counted in the body budget
        self.failed = False  # a chunk was refused: nothing but RSET helps

    def size_limit(self) -> int:
        """The largest message that all recipients' domains take, in bytes."""
        return min(recipient.max_message_bytes for recipient in self.envelope.recipients)


# --- MAIL ------------------------------------------------------------------------------------------------------------------------


def mail(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.2."""
    if (refusal := _may_begin(session)) is not None:
        return refusal
    command = parse_mail(argument, auth=session.rules.submission)
    if isinstance(command, Reason):
        return command
    # RFC 1870 §6.1: refuse by the declared size, before the message is sent.
    if (command.size or 0) > session.shared.message_bytes_max():
        return delivery_reasons.TOO_LARGE
    if not session.shared.bodies.fits(command.size or 0):
        return reasons.BUSY_MEMORY
    sender = _reverse_path(command)
    if isinstance(sender, Reason):
        return sender
    login = session.login
    if login is not None and (unowned := _may_send(session, login, sender)) is not None:
        return unowned
    session.begin_transaction(_envelope(session, command, sender), command)
    return _SENDER_OK


def _may_begin(session: SmtpSession) -> Reason | None:
    if session.helo is None:
        return reasons.NEED_HELO
    if session.rules.submission:
        # RFC 6409 §4.3 and RFC 8314 §3.3: users' mail comes over TLS from users who have shown who they are.
        if session.wire.tls is None:
            return reasons.NEED_TLS
        if session.login is None:
            return reasons.NEED_AUTH
    if session.transaction is not None:
        return reasons.NESTED_MAIL
    if session.transactions >= limits.TRANSACTIONS_MAX:
        return reasons.TOO_MANY_TRANSACTIONS
    return None


def _reverse_path(command: MailCommand) -> Path | Reason | None:
    """The sender's address; None for the null reverse-path (RFC 5321 §4.5.5)."""
    if not command.path:
        return None
    path = parse_path(command.path, smtputf8=command.smtputf8)
    if path is not None:
        return path
    if not command.smtputf8 and not command.path.isascii():
        return syntax.SENDER_NEEDS_SMTPUTF8
    return syntax.SENDER_SYNTAX


def _may_send(session: SmtpSession, login: MailboxConfig, sender: Path | None) -> Reason | Refuse | None:
    directory = session.services.directory
    # The configuration may have changed since the login.
    mailbox = directory.mailbox(login.address)
    if mailbox is None or not directory.accepts_login(mailbox):
        session.login = None
        return reasons.LOGIN_GONE
    # Disposition notifications have the null sender (RFC 8098 §2.1); who wrote them is seen from their From.
    if sender is not None and not directory.may_send_as(mailbox, sender.local, sender.domain):
        return Refuse(delivery_reasons.SENDER_NOT_OWNED, sender.address)
    return None


def _envelope(session: SmtpSession, command: MailCommand, sender: Path | None) -> Envelope:
    tls = session.wire.tls
    session.transactions += 1
    helo = session.helo
    assert helo is not None
    return Envelope(
        session_id=session.wire.session_id,
        # RFC 5321 §4.4: id is an Atom or msg-id.
        id=f"{session.wire.session_id}-{session.transactions}",
        protocol=session.rules.protocol,
        client=Client(
            session.wire.peer.address,
            helo,
            _with_protocol(session, utf8=command.smtputf8),
            f"{tls.version} {tls.cipher}" if tls is not None else "",
        ),
        reverse_path=sender.address if sender is not None else "",
        login=session.login,
        binary=command.body == "BINARYMIME",
        smtputf8=command.smtputf8,
    )


def _with_protocol(session: SmtpSession, *, utf8: bool) -> str:
    """RFC 3848 §3 and RFC 6531 §4.3: what the Received field says after "with"."""
    if not session.esmtp:
        return "SMTP"
    base = "UTF8SMTP" if utf8 else "ESMTP"
    return base + ("S" if session.wire.tls is not None else "") + ("A" if session.login is not None else "")


# --- RCPT ------------------------------------------------------------------------------------------------------------------------


def rcpt(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.3."""
    transaction = session.transaction
    if transaction is None:
        return reasons.NEED_MAIL if session.helo is not None else reasons.NEED_HELO
    if transaction.chunking:
        return reasons.IN_CHUNKS
    command = parse_rcpt(argument)
    if isinstance(command, Reason):
        return command
    transaction.tried += 1
    if transaction.tried > limits.RECIPIENT_COMMANDS_MAX:
        return reasons.TOO_MANY_COMMANDS
    # RFC 5321 §4.5.3.1.10: 452, and the client sends the rest in another transaction.
    if len(transaction.envelope.recipients) >= limits.RECIPIENTS_MAX:
        return reasons.TOO_MANY_RECIPIENTS
    path = parse_path(command.path, smtputf8=transaction.envelope.smtputf8, postmaster=True)
    if path is None:
        if not transaction.envelope.smtputf8 and not command.path.isascii():
            return syntax.RECIPIENT_NEEDS_SMTPUTF8
        return syntax.RECIPIENT_SYNTAX
    if path.route:
        return Refuse(delivery_reasons.ROUTED_ADDRESS, path.address)
    found = find_recipient(session.services.directory, path.local, path.domain, submission=session.rules.submission)
    if isinstance(found, Reason):
        return _not_found(session, found, path.address)
    return _accept(session, transaction, found)


def _not_found(session: SmtpSession, reason: Reason, address: str) -> Result:
    if reason is not delivery_reasons.UNKNOWN_RECIPIENT:
        return Refuse(reason, address)
    session.unknown_recipients += 1
    if session.unknown_recipients > limits.UNKNOWN_RECIPIENTS_MAX:
        return Refuse(reasons.TOO_MANY_UNKNOWN, address)
    delay_s = session.shared.guesses.missed(session.wire.peer.address)
    return _late(session, Refuse(reason, address), delay_s) if delay_s > 0 else Refuse(reason, address)


async def _late(session: SmtpSession, answer: Answer, delay_s: float) -> Answer:
    session.flush()
    await session.services.clock.sleep(delay_s)
    return answer


def _accept(session: SmtpSession, transaction: Transaction, recipient: LocalRecipient) -> Result:
    if transaction.declared > recipient.max_message_bytes:
        return Refuse(delivery_reasons.TOO_LARGE, recipient.address)
    for other in transaction.envelope.recipients:
        # One message per folder of a mailbox, however many of its addresses are named.
        if other.mailbox.address == recipient.mailbox.address and other.tag == recipient.tag:
            return _RECIPIENT_OK
    if session.shared.usage.surely_fits(recipient.mailbox, transaction.declared):
        transaction.envelope.recipients.append(recipient)
        return _RECIPIENT_OK
    return _open(session, transaction, recipient)


async def _open(session: SmtpSession, transaction: Transaction, recipient: LocalRecipient) -> Answer:
    services = session.services
    try:
        async with asyncio.timeout(limits.RECIPIENT_TIMEOUT_S):
            refusal = await open_recipient(services.store, session.shared.quota, recipient, transaction.declared)
    except MailError as error:
        return Refuse(smtp_answer(error.reason), f"{recipient.address}: {error.detail}")
    except TimeoutError:
        return Refuse(delivery_reasons.DELIVERY_TIMEOUT, recipient.address)
    if refusal is not None:
        return Refuse(refusal, recipient.address)
    assert recipient.account is not None
    session.shared.usage.note(recipient.mailbox.address, recipient.account.view.usage.bytes)
    transaction.envelope.recipients.append(recipient)
    return _RECIPIENT_OK


# --- DATA ------------------------------------------------------------------------------------------------------------------------


def data(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.4."""
    refusal = _may_send_content(session)
    if refusal is None and argument:
        refusal = syntax.NO_ARGUMENTS
    transaction = session.transaction
    if refusal is None and transaction is not None:
        if transaction.chunking:
            refusal = reasons.IN_CHUNKS
        elif transaction.body == "BINARYMIME":
            refusal = reasons.BINARY_NEEDS_BDAT
    if refusal is not None:
        # Content behind a refused DATA would be read as commands: whoever sent it could be made to send any command.
        return reasons.PIPELINED_DATA if session.input_pending else refusal
    assert transaction is not None
    limit = transaction.size_limit()
    # Transparency dots do not count (RFC 1870 §4); the exact size is known when they are gone.
    session.expect(DataReader(limit + limit // 8 + 1024), _data_done)
    return _START_DATA


def _may_send_content(session: SmtpSession) -> Reason | None:
    transaction = session.transaction
    if transaction is None:
        return reasons.NEED_MAIL if session.helo is not None else reasons.NEED_HELO
    if not transaction.envelope.recipients:
        # RFC 5321 §3.3: 503 or 554 when no RCPT was accepted; RFC 2920 §3.1 expects 554.
        return reasons.NO_VALID_RECIPIENTS if transaction.tried else reasons.NEED_RCPT
    return None


def _data_done(session: SmtpSession, reader: DataReader | ChunkReader, refusal: Reason | None) -> Result:
    assert isinstance(reader, DataReader)
    transaction = session.transaction
    assert transaction is not None
    if refusal is None and reader.oversize:
        refusal = delivery_reasons.TOO_LARGE
    if refusal is not None:
        session.end_transaction()
        return refusal
    return _deliver(session, transaction, reader.take())


async def _deliver(session: SmtpSession, transaction: Transaction, raw: bytes) -> Answer:
    session.flush()
    try:
        if len(raw) > transaction.size_limit():
            return delivery_reasons.TOO_LARGE
        outcome = await session.shared.pipeline(session.rules).deliver(transaction.envelope, raw)
    finally:
        session.end_transaction()
    if isinstance(outcome, Delivered):
        session.messages += 1
        return Reply(250, "2.0.0", f"Ok: {transaction.envelope.id} stored as {outcome.queue_id}")
    return Refuse(smtp_answer(outcome.reason), outcome.detail)


# --- BDAT ------------------------------------------------------------------------------------------------------------------------


def bdat(session: SmtpSession, argument: bytes) -> Result:
    """RFC 3030 §2. A chunk that is refused is still read, so that it is never taken for commands."""
    parsed = parse_bdat(argument)
    if isinstance(parsed, Reason):
        # How many bytes follow is not known, so what follows cannot be read.
        session.close_after_reply()
        return parsed
    size, last = parsed
    refusal = _may_send_content(session)
    transaction = session.transaction
    if transaction is not None:
        transaction.chunking = True
        if refusal is None and transaction.failed:
            refusal = reasons.CHUNK_REFUSED
        if refusal is None and transaction.received + size > transaction.size_limit():
            refusal = delivery_reasons.TOO_LARGE
    if refusal is not None and size > limits.OVERSIZE_SKIP_BYTES_MAX:
        session.close_after_reply()
        return refusal
    session.expect(ChunkReader(size, keep=refusal is None), _chunk_done, refusal=refusal, last=last)
    return None


def _chunk_done(session: SmtpSession, reader: DataReader | ChunkReader, refusal: Reason | None) -> Result:
    assert isinstance(reader, ChunkReader)
    transaction = session.transaction
    last = session.last_chunk
    if refusal is not None:
        if transaction is not None:
            transaction.failed = True
            transaction.chunks.clear()
            if last:
                session.end_transaction()
        return refusal
    assert transaction is not None
    chunks = reader.take()
    size = sum(map(len, chunks))
    transaction.chunks += chunks
    transaction.received += size
    if last:
        return _deliver(session, transaction, b"".join(transaction.chunks))
    return Reply(250, "2.0.0", f"{size} octets received")

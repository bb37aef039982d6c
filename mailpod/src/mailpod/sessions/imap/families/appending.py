"""APPEND and MULTIAPPEND (RFC 9051 §6.3.12, RFC 3502, RFC 4315 APPENDUID, RFC 7889 APPENDLIMIT, RFC 6855 §4).

A message is decided on before it is sent: size, folder and quota. Its bytes stay in the chunks in which they came, and are committed with
the others of the command in one entry, or none of them is.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailpod.errors import OVER_QUOTA, MailError, Reason, Refused
from mailpod.limits import imap_session as limits
from mailpod.protocol.imap import commands, responses
from mailpod.protocol.imap.commands import AppendMessage
from mailpod.protocol.imap.events import AppendLiteral
from mailpod.sessions.imap import answers
from mailpod.sessions.imap.answers import Answer, ok
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.state import ImapState, Spec
from mailpod.store.types import NewMessage

BUSY = Reason("append-busy", 451, "4.3.1", "NO", "UNAVAILABLE", "", "Too many messages are being received; try again later")


async def decide_literal(state: ImapState, literal: AppendLiteral) -> None:
    """Accept or refuse a message before its bytes are taken in. For a synchronizing literal that spares the transfer."""
    if literal.bytes_before == 0:
        release(state)  # of an APPEND that the client did not finish
    try:
        reason = await _objection(state, literal)
    except MailError as error:
        reason = error.reason
    if reason is None:
        state.reserve(literal.size)
        state.reader.accept_literal()
    else:
        release(state)
        state.reader.refuse_literal(reason.imap_status, reason.text, reason.imap_code)


async def _objection(state: ImapState, literal: AppendLiteral) -> Reason | None:
    total = literal.bytes_before + literal.size
    if literal.size > state.append_limit() or total > limits.APPEND_TOTAL_BYTES_MAX:
        return answers.TOO_BIG  # RFC 7889 §4
    if state.hub.receiving_bytes + literal.size > limits.APPEND_POD_BYTES_MAX:
        return BUSY
    await state.folder(literal.mailbox, try_create=True)
    return OVER_QUOTA if await over_quota(state, literal.size) else None


async def over_quota(state: ImapState, more: int) -> bool:
    """Whether `more` bytes, beside what other sessions of the pod are adding, exceed the quota (RFC 9208 §4.3.1 OVERQUOTA).

    A mailbox that looks full may have been emptied through another pod: the store is asked before saying no.
    """
    account = state.opened()

    def over() -> bool:
        return account.view.usage.bytes + state.hub.reserved(account.address) + more > state.quota_bytes()

    if not over():
        return False
    await account.refresh(limits.REFRESH_NOOP_S)
    return over()


def release(state: ImapState) -> None:
    """What was reserved for a message is committed, or will not come."""
    state.reserve(-state.reserved_bytes)


async def append(state: ImapState, command: commands.Append) -> Answer:
    """RFC 9051 §6.3.12."""
    try:
        folder = await state.folder(command.mailbox, try_create=True)
        for message in command.messages:
            if not message.literal8 and any(b"\0" in chunk for chunk in message.data):
                raise Refused(answers.NUL_IN_MESSAGE)
        account = state.opened()
        messages = [_new(message) for message in command.messages]
        # Other pods are adding too, unseen by `over_quota`: only the commit knows.
        appended = await account.append(folder.id, messages, quota_bytes=state.quota_bytes())
    finally:
        release(state)
    return ok("Appended", responses.code_appenduid(appended.uidvalidity, appended.uids))


def _new(message: AppendMessage) -> NewMessage:
    return NewMessage(raw=_chunks(message.data), flags=message.flags, internaldate=message.internaldate)


def _chunks(data: Sequence[bytes]) -> bytes | Sequence[bytes]:
    return data[0] if len(data) == 1 else data


def _limit(state: ImapState) -> tuple[str, ...]:
    return (f"APPENDLIMIT={state.append_limit()}",)


COMMANDS = {commands.Append: Spec(append)}
CAPABILITIES = (
    Capability("UIDPLUS"),
    Capability("MULTIAPPEND"),
    Capability("APPENDLIMIT", words=_limit),
)

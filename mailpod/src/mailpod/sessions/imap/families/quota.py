"""GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 9208): one root for the whole mailbox, its limit from the administrator's configuration."""

from __future__ import annotations

from mailpod.errors import Refused
from mailpod.limits import imap_session as limits
from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap import answers
from mailpod.sessions.imap.answers import Answer, ok
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.state import ImapState, Spec

ROOT = ""  # RFC 9208 §3.1.2: a quota root's name is the server's to choose
_UNIT_BYTES = 1024  # RFC 9208 §5.1


def _quota(state: ImapState) -> bytes:
    usage = state.opened().view.usage
    storage = ("STORAGE", -(-usage.bytes // _UNIT_BYTES), state.quota_bytes() // _UNIT_BYTES)
    return responses.quota(ROOT, (storage, ("MESSAGE", usage.messages, limits.ACCOUNT_MESSAGES_MAX)))


async def get_quota(state: ImapState, command: commands.GetQuota) -> Answer:
    """RFC 9208 §4.1.2."""
    if command.root != ROOT:
        raise Refused(answers.NO_SUCH_ROOT)
    await state.opened().refresh(limits.REFRESH_NOOP_S)
    state.write(_quota(state))
    return ok("Quota told")


async def get_quota_root(state: ImapState, command: commands.GetQuotaRoot) -> Answer:
    """RFC 9208 §4.1.3."""
    folder = await state.folder(command.mailbox)
    await state.opened().refresh(limits.REFRESH_NOOP_S)
    state.write(responses.quotaroot(folder.name, (ROOT,), state.utf8 or state.rev2))
    state.write(_quota(state))
    return ok("Quota told")


async def set_quota(_state: ImapState, _command: commands.SetQuota) -> Answer:
    """RFC 9208 §4.1.1: the resource belongs to the operator; QUOTASET is not announced."""
    raise Refused(answers.QUOTA_BY_ADMIN)


COMMANDS = {
    commands.GetQuota: Spec(get_quota),
    commands.GetQuotaRoot: Spec(get_quota_root),
    commands.SetQuota: Spec(set_quota),
}
CAPABILITIES = (
    Capability("QUOTA"),
    Capability("QUOTA=RES-STORAGE"),
    Capability("QUOTA=RES-MESSAGE"),
)

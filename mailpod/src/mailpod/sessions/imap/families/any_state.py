"""CAPABILITY, NOOP, LOGOUT, ID (RFC 9051 §6.1, RFC 2971)."""

from __future__ import annotations

import structlog

from mailpod.limits import imap_session as limits
from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap.answers import Answer, ok
from mailpod.sessions.imap.capabilities import Capability, When
from mailpod.sessions.imap.state import ImapState, Spec, Tell

log = structlog.get_logger(__name__)


async def capability(state: ImapState, _command: commands.Capability) -> Answer:
    """RFC 9051 §6.1.1."""
    state.write(responses.capability(state.capabilities()))
    return ok("Capabilities listed")


async def noop(state: ImapState, _command: commands.Noop) -> Answer:
    """RFC 9051 §6.1.2: the usual way to ask what is new. The store is asked when this pod's picture is older than a second."""
    if state.opened_account is not None and state.selected is not None:
        await state.opened_account.refresh(limits.REFRESH_NOOP_S)
    return ok("Done")


async def logout(state: ImapState, _command: commands.Logout) -> Answer:
    """RFC 9051 §6.1.3. The session closes after the tagged answer."""
    state.write(responses.bye("Goodbye"))
    state.closing = True
    return ok("Logged out")


async def id_(state: ImapState, command: commands.Id) -> Answer:
    """RFC 2971. The client's name helps when its behaviour has to be understood; it decides nothing (§1)."""
    if command.params is not None:
        told = {key.lower(): value for key, value in command.params if value is not None}
        fields = {name: told[name][: limits.ID_VALUE_CHARS_LOGGED] for name in limits.ID_FIELDS_LOGGED if name in told}
        log.info("imap-client", session=state.wire.session_id, **{f"client_{name}": value for name, value in fields.items()})
    state.write(responses.id_({"name": "Postroom"}))  # no version: RFC 2971 §4 warns of telling attackers
    return ok("ID exchanged")


COMMANDS = {
    commands.Capability: Spec(capability),
    commands.Noop: Spec(noop),
    commands.Logout: Spec(logout, Tell.NOTHING),
    commands.Id: Spec(id_),
}
CAPABILITIES = (
    Capability("IMAP4rev2", When.ALWAYS),
    Capability("IMAP4rev1", When.ALWAYS),
    Capability("LITERAL+", When.ALWAYS),
    Capability("ID", When.ALWAYS),
)

"""IDLE (RFC 2177, RFC 9051 §6.3.13). The command ends with nothing running: the hub's pump writes what comes."""

from __future__ import annotations

from mailpod.limits import imap_session as limits
from mailpod.limits.imap import IDLE_LINE_BYTES_MAX
from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap.answers import Answer
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.state import ImapState, Spec, Tell


async def idle(state: ImapState, _command: commands.Idle) -> Answer | None:
    """Tell what is new up to now, then wait for DONE. Without a selected folder there is nothing to tell: that is allowed."""
    if state.selected is not None:
        await state.opened().refresh(limits.REFRESH_NOOP_S)
    state.write(responses.continuation("idling"))
    await state.tell(Tell.ALL)
    state.idle_tag = state.current_tag
    state.reader.expect_line(IDLE_LINE_BYTES_MAX)
    if state.selected is not None:
        state.hub.watch(state)
    return None


def end_idle(state: ImapState) -> str:
    """The client's line has come: stop telling. Returns the tag of the IDLE."""
    state.hub.quiet(state)
    tag, state.idle_tag = state.idle_tag, ""
    return tag


COMMANDS = {commands.Idle: Spec(idle, Tell.NOTHING)}
CAPABILITIES = (Capability("IDLE"),)

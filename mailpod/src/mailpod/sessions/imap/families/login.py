"""STARTTLS, AUTHENTICATE, LOGIN (RFC 9051 §6.2), and what is announced of them."""

from __future__ import annotations

import structlog

from mailpod.auth.results import LoginResult, Outcome
from mailpod.contract import Protocol
from mailpod.errors import Reason
from mailpod.limits import imap_session as limits
from mailpod.limits.imap import AUTHENTICATE_LINE_BYTES_MAX
from mailpod.protocol.imap import commands, responses, sasl
from mailpod.sessions.imap import answers
from mailpod.sessions.imap.answers import Answer, bad, no, ok
from mailpod.sessions.imap.capabilities import Capability, When
from mailpod.sessions.imap.state import ImapState, Spec, Tell

log = structlog.get_logger(__name__)

# RFC 9051 §6.2.3, §11.1: no password over a connection that others may read.
PRIVACY_REQUIRED = Reason("privacy-required", 538, "5.7.11", "NO", "PRIVACYREQUIRED", "", "Use STARTTLS first")


async def starttls(state: ImapState, _command: commands.StartTls) -> Answer | None:
    """RFC 9051 §6.2.1. What was sent behind the command in plaintext counts for nothing, and nothing learned before stays."""
    if state.wire.tls is not None:
        return bad("TLS is on already")
    return await state.begin_tls()


async def login(state: ImapState, command: commands.Login) -> Answer | None:
    """RFC 9051 §6.2.3."""
    if state.wire.tls is None:
        return answers.refused(PRIVACY_REQUIRED)
    services = state.services
    result = await services.authenticator.password(
        services.directory, Protocol.IMAP, command.user, command.password, state.wire.peer.address
    )
    return await _finish(state, result)


async def authenticate(state: ImapState, command: commands.Authenticate) -> Answer | None:
    """RFC 9051 §6.2.2 with the initial response of RFC 4959."""
    if state.wire.tls is None:
        return answers.refused(PRIVACY_REQUIRED)
    services = state.services
    exchange = services.authenticator.sasl(services.directory, Protocol.IMAP, command.mechanism, state.wire.peer, state.wire.tls)
    if exchange is None:
        return no("This mechanism is not offered", "CANNOT", "unknown-mechanism")
    step = await exchange.step(command.initial)
    while isinstance(step, bytes):
        state.write(sasl.challenge(step))
        line = await state.read_line(AUTHENTICATE_LINE_BYTES_MAX)
        if line is None:
            return None
        try:
            response = sasl.decode_response(line)
        except sasl.Cancelled:
            return bad("Authentication cancelled", reason="sasl-cancelled")  # RFC 9051 §6.2.2
        except ValueError:
            return bad("Not base64", reason="sasl-malformed")
        step = await exchange.step(response)
    return await _finish(state, step)


async def _finish(state: ImapState, result: LoginResult) -> Answer | None:
    """Open the account, or count the failure."""
    if result.outcome is not Outcome.OK or result.mailbox is None:
        state.login_failures += 1
        log.info(
            "login-refused",
            session=state.wire.session_id,
            protocol=state.wire.protocol,
            peer=state.wire.peer.address,
            reason=result.reason.name,
        )
        if state.login_failures >= limits.LOGIN_FAILURES_MAX:
            state.closing = True
            state.farewell = responses.bye("Too many failed logins")
        return answers.refused(result.reason)
    account = await state.services.store.open(result.mailbox.address)
    state.logged_in(result.mailbox, account)
    log.info("login", session=state.wire.session_id, protocol=state.wire.protocol, peer=state.wire.peer.address, account=account.address)
    return ok("Logged in", responses.code_capability(state.capabilities()))


def _mechanisms(state: ImapState) -> tuple[str, ...]:
    if state.wire.tls is None:
        return ("STARTTLS", "LOGINDISABLED")
    return tuple(f"AUTH={name}" for name in state.services.authenticator.mechanisms(state.wire.tls))


COMMANDS = {
    commands.StartTls: Spec(starttls, Tell.NOTHING),
    commands.Login: Spec(login, Tell.NOTHING),
    commands.Authenticate: Spec(authenticate, Tell.NOTHING),
}
CAPABILITIES = (
    Capability("SASL-IR", When.BEFORE_LOGIN),
    Capability("AUTH", When.BEFORE_LOGIN, _mechanisms),
)

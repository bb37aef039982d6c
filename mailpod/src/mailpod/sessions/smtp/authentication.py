"""AUTH (RFC 4954): only on submission ports, only over TLS, through the pod's authenticator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from mailpod import telemetry
from mailpod.auth.results import LoginResult, Outcome
from mailpod.auth.sasl import SaslExchange, initial_response, sasl_decode, sasl_encode
from mailpod.contract import Protocol
from mailpod.delivery import Refuse
from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.protocol.smtp import Reply, fixed
from mailpod.protocol.smtp import reasons as syntax
from mailpod.sessions.smtp import reasons
from mailpod.sessions.smtp.shared import smtp_answer
from mailpod.sessions.smtp.transaction import Answer, Result

if TYPE_CHECKING:
    from mailpod.sessions.smtp.session import SmtpSession

_log: Final = structlog.get_logger(__name__)
_SUCCEEDED: Final = fixed(235, "2.7.0", "Authentication succeeded")


def auth(session: SmtpSession, argument: bytes) -> Result:
    """AUTH mechanism [initial-response]."""
    if (refusal := _may_authenticate(session)) is not None:
        return refusal
    words = argument.split()
    if not 1 <= len(words) <= 2:
        return syntax.COMMAND_SYNTAX
    services = session.services
    mechanism = words[0].decode("ascii", "replace").upper()
    exchange = services.authenticator.sasl(services.directory, Protocol.SUBMISSION, mechanism, session.wire.peer, session.wire.tls)
    if exchange is None:
        return reasons.AUTH_MECHANISM
    response: bytes | None = None
    if len(words) == 2:
        # RFC 4954 §4: "=" is an empty initial response.
        response = initial_response(words[1])
        if response is None:
            return _failed(session, mechanism, reasons.AUTH_BASE64)
    session.exchange = exchange
    return _step(session, exchange, response)


def _may_authenticate(session: SmtpSession) -> Reason | None:
    if not session.rules.submission:
        return reasons.NOT_IMPLEMENTED
    if not session.esmtp:
        return reasons.NEED_HELO
    if session.wire.tls is None:
        return reasons.AUTH_NEEDS_TLS
    if session.login is not None:
        return reasons.AUTH_ALREADY
    if session.transaction is not None:
        return reasons.AUTH_IN_TRANSACTION
    return None


def continuation(session: SmtpSession, exchange: SaslExchange, line: bytes | Reason) -> Result:
    """The client's answer to a challenge (RFC 4954 §4)."""
    if isinstance(line, Reason):
        return _failed(session, exchange.mechanism, reasons.AUTH_LINE_TOO_LONG if line is syntax.LINE_TOO_LONG else line)
    if line == b"*":
        return _failed(session, exchange.mechanism, reasons.AUTH_ABORTED)
    response = sasl_decode(line)
    if response is None:
        return _failed(session, exchange.mechanism, reasons.AUTH_BASE64)
    return _step(session, exchange, response)


async def _step(session: SmtpSession, exchange: SaslExchange, response: bytes | None) -> Answer:
    session.flush()
    result = await exchange.step(response)
    if isinstance(result, LoginResult):
        return _finished(session, exchange.mechanism, result)
    return Reply(334, "", sasl_encode(result).decode("ascii"))


def _finished(session: SmtpSession, mechanism: str, result: LoginResult) -> Answer:
    session.exchange = None
    if result.outcome is not Outcome.OK or result.mailbox is None:
        return _failed(session, mechanism, smtp_answer(result.reason))
    session.logged_in(result.mailbox)
    telemetry.AUTH.labels(session.rules.protocol, mechanism, Outcome.OK.value).inc()
    _log.info("login", session=session.wire.session_id, peer=session.wire.peer.address, mechanism=mechanism, account=result.mailbox.address)
    return _SUCCEEDED


def _failed(session: SmtpSession, mechanism: str, reason: Reason) -> Answer:
    session.exchange = None
    session.auth_failures += 1
    telemetry.AUTH.labels(session.rules.protocol, mechanism, reason.name).inc()
    if session.auth_failures >= limits.AUTH_FAILURES_MAX:
        # RFC 4954 §4 leaves closing to us after repeated failures; the last one's own answer still goes out first.
        session.close_after_reply(reasons.AUTH_TOO_MANY)
    return Refuse(reason, mechanism)

"""The table of commands, and those that move no mail: HELO, EHLO, STARTTLS, NOOP, RSET, VRFY, HELP, QUIT (RFC 5321 §4.1.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.protocol.smtp import Reply, encode_lines, fixed, parse_helo
from mailpod.protocol.smtp import reasons as syntax
from mailpod.sessions.smtp import reasons
from mailpod.sessions.smtp.authentication import auth
from mailpod.sessions.smtp.transaction import Answer, Result, bdat, data, mail, rcpt

if TYPE_CHECKING:
    from mailpod.sessions.smtp.session import SmtpSession

Handler = Callable[["SmtpSession", bytes], Result]

_OK: Final = fixed(250, "2.0.0", "Ok")
_BYE: Final = fixed(221, "2.0.0", "Bye")
_READY_FOR_TLS: Final = fixed(220, "2.0.0", "Ready to start TLS")
_CANNOT_VERIFY: Final = fixed(252, "2.5.0", "Cannot verify; send the message and see")
_HELP: Final = fixed(214, "2.0.0", "See RFC 5321")


@lru_cache(maxsize=8)
def greeting(hostname: str) -> bytes:
    """RFC 5321 §4.2; RFC 2034 §4: no enhanced code in the greeting."""
    return encode_lines(220, "", [f"{hostname} ESMTP Postroom"])


@lru_cache(maxsize=32)
def _extensions(hostname: str, size: int, *, starttls: bool, mechanisms: tuple[str, ...]) -> bytes:
    lines = [
        hostname,
        "PIPELINING",  # RFC 2920
        f"SIZE {size}",  # RFC 1870
        "8BITMIME",  # RFC 6152
        "SMTPUTF8",  # RFC 6531
        "CHUNKING",  # RFC 3030
        "BINARYMIME",  # RFC 3030
        "ENHANCEDSTATUSCODES",  # RFC 2034
        f"LIMITS MAILMAX={limits.TRANSACTIONS_MAX} RCPTMAX={limits.RECIPIENTS_MAX}",  # RFC 9422
    ]
    if starttls:
        lines.append("STARTTLS")  # RFC 3207
    if mechanisms:
        lines.append("AUTH " + " ".join(mechanisms))  # RFC 4954
    # RFC 2034 §4: no enhanced codes in the answers to HELO and EHLO.
    return encode_lines(250, "", lines)


def ehlo(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.1."""
    name = parse_helo(argument)
    if isinstance(name, Reason):
        return name
    session.reset()
    session.helo, session.esmtp = name, True
    tls = session.wire.tls
    # RFC 4954 §4, RFC 6409: users log in on the submission ports only, and their passwords cross the net encrypted.
    mechanisms = session.services.authenticator.mechanisms(tls) if session.rules.submission and tls is not None else ()
    lines = _extensions(
        session.services.hostname,
        session.shared.message_bytes_max(),
        starttls=session.starttls and tls is None,
        mechanisms=mechanisms,
    )
    session.say(lines, 250)
    return None


def helo(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.1."""
    name = parse_helo(argument)
    if isinstance(name, Reason):
        return name
    session.reset()
    session.helo, session.esmtp = name, False
    return Reply(250, "", session.services.hostname)


def starttls(session: SmtpSession, argument: bytes) -> Result:
    """RFC 3207 §4."""
    if session.wire.tls is not None:
        return reasons.TLS_ALREADY
    if argument:
        return syntax.NO_ARGUMENTS
    if not session.starttls:
        return reasons.TLS_UNAVAILABLE
    return _start_tls(session)


async def _start_tls(session: SmtpSession) -> Answer:
    session.answer(_READY_FOR_TLS)
    await session.start_tls()
    return None


def noop(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.9."""
    return _OK


def rset(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.5."""
    if argument:
        return syntax.NO_ARGUMENTS
    session.reset()
    return _OK


def vrfy(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §3.5.3, §7.3: 252 tells nothing to who collects addresses."""
    return _CANNOT_VERIFY if argument else syntax.COMMAND_SYNTAX


def expn(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.7: there are no lists to expand."""
    return reasons.NOT_IMPLEMENTED


def help_(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.8."""
    return _HELP


def quit_(session: SmtpSession, argument: bytes) -> Result:
    """RFC 5321 §4.1.1.10."""
    if argument:
        return syntax.NO_ARGUMENTS
    session.close_after_reply()
    return _BYE


COMMANDS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "EHLO": ehlo,
        "HELO": helo,
        "MAIL": mail,
        "RCPT": rcpt,
        "DATA": data,
        "BDAT": bdat,
        "RSET": rset,
        "NOOP": noop,
        "QUIT": quit_,
        "STARTTLS": starttls,
        "AUTH": auth,
        "VRFY": vrfy,
        "EXPN": expn,
        "HELP": help_,
    }
)

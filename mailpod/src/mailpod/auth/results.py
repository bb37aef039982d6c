"""What a login ends in, and the wire answers of its refusals."""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from mailpod.contract import MailboxConfig
from mailpod.errors import Reason


class Outcome(enum.Enum):
    """How an attempt to log in ended."""

    OK = "ok"
    BAD_CREDENTIALS = "bad-credentials"  # unknown user, wrong password, malformed exchange: indistinguishable except the last
    NOT_ALLOWED = "not-allowed"  # the password was right; the mailbox's state or protocols forbid the login
    THROTTLED = "throttled"  # nothing was checked; try again later


class LoginResult(NamedTuple):
    """The end of an attempt. `reason` carries the answer for each protocol when the outcome isn't OK."""

    outcome: Outcome
    mailbox: MailboxConfig | None  # when OK
    reason: Reason
    retry_after_s: float = 0.0  # when THROTTLED


class Logins(Protocol):
    """Who there is: `directory.Directory`."""

    def login(self, name: str) -> MailboxConfig | None:
        """The mailbox that a login name means: its address, or an alias of it, in any case."""

    def accepts_login(self, mailbox: MailboxConfig) -> bool:
        """Whether the mailbox's state lets its owner log in."""


class PeerLike(Protocol):
    """The client: `sessions.wire.Peer`."""

    @property
    def address(self) -> str:
        """IP address without a zone."""


class TlsLike(Protocol):
    """The TLS layer in force: `sessions.wire.TlsInfo`."""

    @property
    def channel_binding(self) -> tuple[str, bytes] | None:
        """Type (RFC 5929, RFC 9266) and data; None when there is nothing to bind to."""

    @property
    def other_bindings(self) -> tuple[tuple[str, bytes], ...]:
        """What a client may bind to instead."""


SUCCESS = Reason("login-ok", 235, "2.7.0", "OK", "", "", "Logged in")
# RFC 4954 §6 (535 5.7.8), RFC 5530 §3 AUTHENTICATIONFAILED, RFC 3206 §5 AUTH.
BAD_CREDENTIALS = Reason("bad-credentials", 535, "5.7.8", "NO", "AUTHENTICATIONFAILED", "AUTH", "Authentication failed")
# RFC 5248 §2.4 (525 5.7.13): said only to someone who knows the password. RFC 3206 §5: AUTH covers violations of policy too.
NOT_ALLOWED = Reason("login-not-allowed", 525, "5.7.13", "NO", "CONTACTADMIN", "AUTH", "This mailbox may not log in by this protocol")
# RFC 4616 §2: the authorization identity is another's. RFC 5530 §3 AUTHORIZATIONFAILED.
OTHER_IDENTITY = Reason("sasl-other-identity", 535, "5.7.8", "NO", "AUTHORIZATIONFAILED", "AUTH", "Acting as another user is not allowed")
# RFC 4954 §6 (454 4.7.0). RFC 3206 §4 SYS/TEMP, not AUTH: the client must not ask its user for another password.
THROTTLED = Reason("login-throttled", 454, "4.7.0", "NO", "UNAVAILABLE", "SYS/TEMP", "Too many failed logins; try again later")
BUSY = Reason("login-busy", 454, "4.7.0", "NO", "UNAVAILABLE", "SYS/TEMP", "Too many logins at this moment; try again later")
# RFC 4954 §4 (501 5.5.2); RFC 9051 §6.2.2 BAD.
MALFORMED = Reason("sasl-malformed", 501, "5.5.2", "BAD", "", "", "Malformed authentication exchange")


def succeeded(mailbox: MailboxConfig) -> LoginResult:
    """The result of a login that is let in."""
    return LoginResult(Outcome.OK, mailbox, SUCCESS)


def malformed() -> LoginResult:
    """The result of an exchange whose messages make no sense."""
    return LoginResult(Outcome.BAD_CREDENTIALS, None, MALFORMED)

"""SASL (RFC 4422): the exchange that SMTP AUTH, IMAP AUTHENTICATE and POP3 AUTH share; PLAIN (RFC 4616) and LOGIN; base64."""

from __future__ import annotations

import abc
import base64
import binascii
from collections.abc import Awaitable, Callable

from mailpod.auth.results import LoginResult, malformed
from mailpod.limits import auth as limits

# (login name, password, authorization identity) → result; `Authenticator` binds protocol, peer and directory.
PasswordCheck = Callable[[str, str, str], Awaitable[LoginResult]]


def sasl_decode(text: bytes) -> bytes | None:
    """A base64 line from a client (RFC 4648 §4, padding required); None when it is none or too long. For `=` see `initial_response`."""
    if len(text) > limits.SASL_MESSAGE_BYTES_MAX * 4 // 3 + 4:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def initial_response(text: bytes) -> bytes | None:
    """A base64 initial response on the command's line, where `=` is an empty one (RFC 4954 §4, RFC 4959 §3, RFC 5034 §4)."""
    return b"" if text == b"=" else sasl_decode(text)


def sasl_encode(challenge: bytes) -> bytes:
    """A challenge as it is sent, without line end."""
    return base64.b64encode(challenge)


class SaslExchange(abc.ABC):
    """One authentication in progress. A client that aborts it ("*") is answered by the session, which drops the object."""

    mechanism: str

    @abc.abstractmethod
    async def step(self, response: bytes | None) -> bytes | LoginResult:
        """Take the client's decoded message (None: no initial response was given) and return the next challenge, or the result.

        After a result the object is spent.
        """


class PlainExchange(SaslExchange):
    """RFC 4616: authzid NUL authcid NUL password, in one message."""

    mechanism = "PLAIN"

    def __init__(self, check: PasswordCheck) -> None:
        self._check = check
        self._asked = False

    async def step(self, response: bytes | None) -> bytes | LoginResult:
        """An empty challenge when there was no initial response, else the result."""
        if response is None:
            if self._asked:
                return malformed()
            self._asked = True
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3 or len(response) > limits.SASL_MESSAGE_BYTES_MAX:
            return malformed()
        try:
            authzid, authcid, password = (part.decode() for part in parts)
        except UnicodeDecodeError:
            return malformed()
        if not authcid or not password:  # RFC 4616 §2: both are 1*SAFE
            return malformed()
        return await self._check(authcid, password, authzid)


class LoginExchange(SaslExchange):
    """LOGIN (draft-murchison-sasl-login): obsolete, but all that some clients have."""

    mechanism = "LOGIN"

    def __init__(self, check: PasswordCheck) -> None:
        self._check = check
        self._name: str | None = None
        self._asked = False

    async def step(self, response: bytes | None) -> bytes | LoginResult:
        """Ask for the name, then for the password. Some clients send the name as initial response."""
        if response is None:
            if self._asked:
                return malformed()
            self._asked = True
            return b"Username:"
        if len(response) > limits.SASL_MESSAGE_BYTES_MAX or b"\0" in response or not response:
            return malformed()
        try:
            text = response.decode()
        except UnicodeDecodeError:
            return malformed()
        if self._name is None:
            self._name = text
            return b"Password:"
        return await self._check(self._name, text, "")

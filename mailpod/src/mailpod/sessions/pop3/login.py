"""The AUTHORIZATION state: USER and PASS (RFC 1939 §7), AUTH (RFC 5034), STLS (RFC 2595 §4)."""

from __future__ import annotations

from mailpod.auth.authenticator import LoginResult, Outcome, initial_response, sasl_decode, sasl_encode
from mailpod.auth.sasl import SaslExchange
from mailpod.contract import MailboxConfig, Protocol
from mailpod.limits import pop3 as limits
from mailpod.protocol.pop3 import responses
from mailpod.protocol.pop3.commands import CommandError
from mailpod.sessions.services import Services
from mailpod.sessions.wire import Wire


class Login:
    """One session's way to a mailbox."""

    def __init__(self, wire: Wire, services: Services) -> None:
        self._wire = wire
        self._services = services
        self._user: str | None = None
        self._exchange: SaslExchange | None = None
        self.failures = 0

    @property
    def in_exchange(self) -> bool:
        """Whether the next line belongs to AUTH."""
        return self._exchange is not None

    def mechanisms(self) -> tuple[str, ...]:
        """What AUTH offers now; none before TLS."""
        return self._services.authenticator.mechanisms(self._wire.tls)

    def require_tls(self) -> None:
        """RFC 2595 §2.2, RFC 8314 §4: no password in plaintext. Raises CommandError."""
        if self._wire.tls is None:
            raise CommandError("Start TLS first (STLS)")

    def user(self, name: str) -> None:
        """Every name is taken, known or not: PASS gives the one answer (RFC 1939 §7 allows it)."""
        self.require_tls()
        self._user = name

    async def password(self, password: str) -> MailboxConfig:
        """PASS. Raises CommandError."""
        self.require_tls()
        user, self._user = self._user, None
        if user is None:
            raise CommandError("USER first")
        services = self._services
        result = await services.authenticator.password(services.directory, Protocol.POP3, user, password, self._wire.peer.address)
        return self._accept(result)

    async def begin(self, mechanism: str, initial: bytes | None) -> MailboxConfig | None:
        """AUTH with its optional initial response. None: a challenge was sent. Raises CommandError."""
        self.require_tls()
        services = self._services
        exchange = services.authenticator.sasl(services.directory, Protocol.POP3, mechanism, self._wire.peer.address, self._wire.tls)
        if exchange is None:
            raise CommandError("Unknown mechanism")
        response = None
        if initial is not None and (response := initial_response(initial)) is None:
            raise CommandError("Initial response is not base64")
        return await self._step(exchange, response)

    async def answer(self, line: bytes) -> MailboxConfig | None:
        """The client's line to a challenge. Raises CommandError."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if line == b"*":  # RFC 5034 §4
            raise CommandError("Authentication cancelled")
        response = sasl_decode(line)
        if response is None:
            raise CommandError("Response is not base64")
        return await self._step(exchange, response)

    def abandon(self) -> None:
        """The exchange can't go on (its line was too long)."""
        self._exchange = None

    async def _step(self, exchange: SaslExchange, response: bytes | None) -> MailboxConfig | None:
        outcome = await exchange.step(response)
        if isinstance(outcome, LoginResult):
            return self._accept(outcome)
        self._exchange = exchange
        self._wire.write(responses.challenge(sasl_encode(outcome)))
        return None

    def _accept(self, result: LoginResult) -> MailboxConfig:
        if result.outcome is Outcome.OK and result.mailbox is not None:
            return result.mailbox
        self.failures += 1
        raise CommandError(result.reason.text, result.reason.pop3_code)

    @property
    def exhausted(self) -> bool:
        """Whether the client has failed often enough."""
        return self.failures >= limits.FAILED_LOGINS_MAX

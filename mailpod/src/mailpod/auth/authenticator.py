"""Passwords and SCRAM for all protocols, with throttling. One per pod."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter as Tally
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from prometheus_client import Counter

from mailpod import telemetry
from mailpod.auth import verifiers
from mailpod.auth.results import (
    BAD_CREDENTIALS,
    BUSY,
    MALFORMED,
    NOT_ALLOWED,
    OTHER_IDENTITY,
    THROTTLED,
    LoginResult,
    Logins,
    Outcome,
    PeerLike,
    TlsLike,
    succeeded,
)
from mailpod.auth.sasl import LoginExchange, PlainExchange, SaslExchange, initial_response, sasl_decode, sasl_encode
from mailpod.auth.saslprep import saslprep
from mailpod.auth.scram import ScramExchange, ScramSubject
from mailpod.auth.throttle import Brakes, address_key
from mailpod.contract import Credential, MailboxConfig, Protocol
from mailpod.errors import Reason
from mailpod.limits import auth as limits
from mailpod.ports import Clock, Entropy, Offload

__all__ = [
    "BAD_CREDENTIALS",
    "BUSY",
    "MALFORMED",
    "NOT_ALLOWED",
    "OTHER_IDENTITY",
    "THROTTLED",
    "Authenticator",
    "LoginResult",
    "Outcome",
    "SaslExchange",
    "initial_response",
    "sasl_decode",
    "sasl_encode",
]

log = structlog.get_logger(__name__)


class _Attempt(NamedTuple):
    """Who tries what, from where; never the password."""

    directory: Logins
    protocol: Protocol
    mechanism: str
    peer: str  # address as it is, for the log
    address: str  # its throttling key


class _UncheckedError(Exception):
    """The brakes said no before a slow check began."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s


class Authenticator:
    """Checks passwords and SASL exchanges against the directory's verifiers.

    `salt_key`: a secret that all pods of the fleet share, so that a name without SCRAM keys shows the same salt on every pod;
    without one it is made up at start.
    """

    def __init__(self, clock: Clock, entropy: Entropy, offload: Offload, salt_key: bytes | None = None) -> None:
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._salt_key = salt_key if salt_key is not None else entropy.bytes(32)
        self._flight_key = entropy.bytes(32)
        self._cache = verifiers.SuccessCache(clock, entropy)
        self._slots = asyncio.Semaphore(limits.ARGON2_CONCURRENCY)
        self._flights: dict[bytes, asyncio.Task[Credential | None]] = {}
        self._pending: Tally[str] = Tally()  # flights by account and by address
        self._iterations = limits.SCRAM_ITERATIONS
        self._counters: dict[tuple[str, str, str], Counter] = {}
        self.brakes = Brakes(clock)

    async def password(self, directory: Logins, protocol: Protocol, login: str, password: str, peer: str | PeerLike) -> LoginResult:
        """Check a name and password given in the clear inside TLS (IMAP LOGIN, POP3 USER/PASS)."""
        return await self._check(_attempt(directory, protocol, "PASSWORD", peer), login, password, "")

    def mechanisms(self, tls: TlsLike | None) -> tuple[str, ...]:
        """SASL mechanisms to offer; none before TLS. -PLUS only where there is something to bind to (RFC 5802 §6)."""
        if tls is None:
            return ()
        if tls.channel_binding is None:
            return ("PLAIN", "LOGIN", "SCRAM-SHA-256")
        return ("PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")

    def sasl(self, directory: Logins, protocol: Protocol, mechanism: str, peer: str | PeerLike, tls: TlsLike | None) -> SaslExchange | None:
        """Begin an exchange; None when the mechanism (in any case) is unknown or not offered."""
        mechanism = mechanism.upper()
        if mechanism not in self.mechanisms(tls):
            return None
        attempt = _attempt(directory, protocol, mechanism, peer)

        async def check(login: str, password: str, authzid: str) -> LoginResult:
            return await self._check(attempt, login, password, authzid)

        if mechanism == "PLAIN":
            return PlainExchange(check)
        if mechanism == "LOGIN":
            return LoginExchange(check)
        bindings = {}
        if tls is not None and tls.channel_binding is not None:
            bindings = dict((tls.channel_binding, *tls.other_bindings))
        return ScramExchange(_ScramBackend(self, attempt), self._entropy, bindings, plus=mechanism.endswith("-PLUS"))

    async def _check(self, attempt: _Attempt, login: str, password: str, authzid: str) -> LoginResult:
        started = self._clock.monotonic()
        name = saslprep(login) or login
        mailbox = attempt.directory.login(name)
        account = _account(mailbox, name)
        if (wait_s := self.brakes.wait_s(account, attempt.address)) > 0:
            return self.throttled(attempt, mailbox, THROTTLED, wait_s)
        candidates, forms = _candidates(mailbox, attempt.protocol), _password_forms(password)
        if not forms or len(login.encode(errors="replace")) > limits.LOGIN_BYTES_MAX:
            candidates, forms = (), (b"-",)  # too long to be right: fails like anything else
        credential = self._quick(candidates, forms) if self._may_be_quick(account, attempt.address) else None
        if credential is None:
            if len(self._flights) >= limits.ARGON2_WAITING_MAX:
                self.brakes.failed(account, attempt.address)  # or a crowd would make guesses free
                return self.throttled(attempt, mailbox, BUSY, limits.THROTTLE_DELAY_S_MIN)
            try:
                credential = await self._slow(attempt, account, candidates, forms)
            except _UncheckedError as unchecked:
                return self.throttled(attempt, mailbox, THROTTLED, unchecked.wait_s)
        if credential is None or mailbox is None:
            return await self.failure(attempt, mailbox, started, "password")
        return self.success(attempt, mailbox, credential, authzid if authzid != login else "")

    def _may_be_quick(self, account: str, address: str) -> bool:
        """Whether a guess may be compared before its turn: not while as many are under way as may fail without consequences."""
        pending = self._pending
        if not pending:
            return True
        return pending[address] < limits.ADDRESS_FREE_FAILURES and (
            pending[account] < limits.ACCOUNT_FREE_FAILURES or self.brakes.is_known(account, address)
        )

    def _quick(self, candidates: Sequence[Credential], forms: Sequence[bytes]) -> Credential | None:
        """A match that needs no slow hash: a generated password, or one that was right lately."""
        for credential in candidates:
            for form in forms:
                if credential.verifier.startswith(verifiers.SHA256_PREFIX):
                    if verifiers.sha256_matches(credential.verifier, form):
                        return credential
                elif self._cache.key(credential.verifier, form) in self._cache:
                    return credential
        return None

    async def _slow(self, attempt: _Attempt, account: str, candidates: Sequence[Credential], forms: Sequence[bytes]) -> Credential | None:
        """One slow check for all who ask the same at the same time; a caller that goes away does not stop it for the others."""
        key = hmac.digest(self._flight_key, account.encode(errors="replace") + b"\0" + forms[0], "sha256")
        task = self._flights.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._slow_check(attempt, account, candidates, forms))
            self._flights[key] = task
            self._pending.update((account, attempt.address))
            task.add_done_callback(lambda done: self._landed(key, account, attempt.address, done))
        return await asyncio.shield(task)

    def _landed(self, key: bytes, account: str, address: str, task: asyncio.Task[Credential | None]) -> None:
        del self._flights[key]
        for name in (account, address):
            self._pending[name] -= 1
            if not self._pending[name]:
                del self._pending[name]
        if not task.cancelled():
            task.exception()  # everyone who asked may be gone: then nobody else looks at it

    async def _slow_check(
        self, attempt: _Attempt, account: str, candidates: Sequence[Credential], forms: Sequence[bytes]
    ) -> Credential | None:
        slow = [c for c in candidates if c.verifier.startswith(verifiers.ARGON2_PREFIX) and verifiers.argon2_within_limits(c.verifier)]
        if len(slow) > limits.ARGON2_PER_LOGIN_MAX:
            log.warning("too-many-app-passwords", account=account, credentials=len(slow))
            del slow[limits.ARGON2_PER_LOGIN_MAX :]
        async with self._slots:
            # Again, now that it is our turn: those before us may have used up the free failures.
            if (wait_s := self.brakes.wait_s(account, attempt.address)) > 0:
                raise _UncheckedError(wait_s)
            if (credential := self._quick(candidates, forms)) is not None:
                return credential
            index = await self._offload(verifiers.argon2_first_match, [c.verifier for c in slow], forms)
            if index < 0:
                self.brakes.failed(account, attempt.address)
                return None
        for form in forms:
            self._cache.remember(self._cache.key(slow[index].verifier, form))
        return slow[index]

    # The three ways out, for passwords and for SCRAM.

    def throttled(self, attempt: _Attempt, mailbox: MailboxConfig | None, reason: Reason, wait_s: float) -> LoginResult:
        """Nothing was checked."""
        self._note(attempt, reason.name, mailbox, wait_s=round(wait_s, 1))
        return LoginResult(Outcome.THROTTLED, None, reason, wait_s)

    async def failure(self, attempt: _Attempt, mailbox: MailboxConfig | None, started: float, detail: str) -> LoginResult:
        """Wrong: said at the next multiple of the quantum, whoever it was about. The caller has counted it with the brakes."""
        self._note(attempt, BAD_CREDENTIALS.name, mailbox, detail=detail)
        elapsed = self._clock.monotonic() - started
        await self._clock.sleep(limits.FAILURE_QUANTUM_S - elapsed % limits.FAILURE_QUANTUM_S)
        return LoginResult(Outcome.BAD_CREDENTIALS, None, BAD_CREDENTIALS)

    def success(self, attempt: _Attempt, mailbox: MailboxConfig, credential: Credential, authzid: str) -> LoginResult:
        """The password was right: let in, unless the mailbox's state, its protocols or the credential's forbid it."""
        allowed = (
            attempt.directory.accepts_login(mailbox)
            and attempt.protocol in mailbox.protocols
            and (credential.protocols is None or attempt.protocol in credential.protocols)
        )
        if not allowed:
            self._note(attempt, NOT_ALLOWED.name, mailbox, state=mailbox.state.value, app=credential.name)
            return LoginResult(Outcome.NOT_ALLOWED, None, NOT_ALLOWED)
        if authzid and attempt.directory.login(saslprep(authzid) or authzid) is not mailbox:
            self._note(attempt, OTHER_IDENTITY.name, mailbox)
            return LoginResult(Outcome.NOT_ALLOWED, None, OTHER_IDENTITY)
        self.brakes.succeeded(mailbox.address, attempt.address)
        self._note(attempt, "ok", mailbox, app=credential.name)
        return succeeded(mailbox)

    def scram_subject(self, attempt: _Attempt, name: str) -> ScramSubject:
        """Whom a SCRAM exchange is about; a name without keys gets a salt that is always the same for it."""
        mailbox = attempt.directory.login(name)
        account = _account(mailbox, name)
        keyed = [c for c in _candidates(mailbox, attempt.protocol) if c.scram is not None]
        if keyed and (first := keyed[0].scram) is not None:
            self._iterations = first.iterations
            same = tuple(c for c in keyed if c.scram and (c.scram.salt, c.scram.iterations) == (first.salt, first.iterations))
            return ScramSubject(account, mailbox, same, first.salt, first.iterations)
        salt = hmac.digest(self._salt_key, name.lower().encode(errors="replace"), "sha256")[: limits.SCRAM_SALT_BYTES]
        return ScramSubject(account, mailbox, (), salt, self._iterations)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic()

    def _note(self, attempt: _Attempt, result: str, mailbox: MailboxConfig | None, **fields: object) -> None:
        label = (attempt.protocol.value.lower(), attempt.mechanism, result)
        counter = self._counters.get(label)
        if counter is None:
            counter = self._counters[label] = telemetry.AUTH.labels(*label)
        counter.inc()
        # An unknown name is not logged: people type their password there.
        account = mailbox.address if mailbox is not None else None
        log.info("login", result=result, protocol=label[0], mechanism=attempt.mechanism, account=account, peer=attempt.peer, **fields)


class _ScramBackend:
    """One exchange's view of the authenticator."""

    def __init__(self, authenticator: Authenticator, attempt: _Attempt) -> None:
        self._authenticator = authenticator
        self._attempt = attempt

    def subject(self, name: str) -> ScramSubject:
        return self._authenticator.scram_subject(self._attempt, name)

    def refuse_early(self, subject: ScramSubject) -> LoginResult | None:
        wait_s = self._authenticator.brakes.wait_s(subject.account, self._attempt.address)
        return self._authenticator.throttled(self._attempt, subject.mailbox, THROTTLED, wait_s) if wait_s > 0 else None

    async def failure(self, subject: ScramSubject, started: float, detail: str) -> LoginResult:
        self._authenticator.brakes.failed(subject.account, self._attempt.address)
        return await self._authenticator.failure(self._attempt, subject.mailbox, started, detail)

    def success(self, subject: ScramSubject, credential: Credential, authzid: str) -> LoginResult:
        assert subject.mailbox is not None
        return self._authenticator.success(self._attempt, subject.mailbox, credential, authzid)

    def now(self) -> float:
        return self._authenticator.now()


def _attempt(directory: Logins, protocol: Protocol, mechanism: str, peer: str | PeerLike) -> _Attempt:
    address = peer if isinstance(peer, str) else peer.address
    return _Attempt(directory, protocol, mechanism, address, address_key(address))


def _account(mailbox: MailboxConfig | None, name: str) -> str:
    """What the brakes know an account by. Unknown names have theirs too, so that they are slowed down alike."""
    return mailbox.address if mailbox is not None else "?" + name[: limits.LOGIN_BYTES_MAX].lower()


def _candidates(mailbox: MailboxConfig | None, protocol: Protocol) -> Sequence[Credential]:
    """The mailbox's credentials, those for `protocol` first: the same password may stand in two of them."""
    if mailbox is None:
        return ()
    if all(credential.protocols is None for credential in mailbox.credentials):
        return mailbox.credentials
    return sorted(mailbox.credentials, key=lambda c: c.protocols is not None and protocol not in c.protocols)


def _password_forms(password: str) -> tuple[bytes, ...]:
    """The password as it came and, where different, prepared (RFC 4616 §2): verifiers may hold either. () when it is too long."""
    raw = password.encode(errors="replace")
    if len(raw) > limits.PASSWORD_BYTES_MAX:
        return ()
    prepared = saslprep(password)
    return (raw,) if prepared is None or prepared == password else (raw, prepared.encode())

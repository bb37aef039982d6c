"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), the server's side.

Names without keys get a salt made from the name, stable for all pods that share a `salt_key`, and fail only at the proof,
like a wrong password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Awaitable, Mapping
from typing import NamedTuple, Protocol

from mailpod.auth.results import LoginResult, malformed
from mailpod.auth.sasl import SaslExchange, sasl_decode
from mailpod.auth.saslprep import saslprep
from mailpod.contract import Credential, MailboxConfig, ScramKeys
from mailpod.limits import auth as limits
from mailpod.ports import Entropy

# RFC 5802 §7. A mandatory extension (m=) is none that we know, so it fails to match; optional ones at the end are ignored.
_CLIENT_FIRST = re.compile(
    r"(?P<gs2>(?P<flag>p=(?P<binding>[A-Za-z0-9.\-]+)|n|y),(?:a=(?P<authzid>[^,\0]+))?,)"
    r"(?P<bare>n=(?P<name>[^,\0]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*)"
)
_CLIENT_FINAL = re.compile(
    r"(?P<unproven>c=(?P<channel>[A-Za-z0-9+/=]+),r=(?P<nonce>[\x21-\x2b\x2d-\x7e]+)(?:,[A-Za-z]=[^,\0]+)*),p=(?P<proof>[A-Za-z0-9+/=]+)"
)
_BAD_ESCAPE = re.compile(r"=(?!2C|3D)")


class ScramSubject(NamedTuple):
    """Whom an exchange is about: known or not, it looks the same to the client."""

    account: str  # for the brakes
    mailbox: MailboxConfig | None
    candidates: tuple[Credential, ...]  # of one salt and iteration count; () when there is nothing to be proven
    salt: bytes
    iterations: int


class ScramBackend(Protocol):
    """What the exchange asks of its `Authenticator`, with protocol, peer and directory bound."""

    def subject(self, name: str) -> ScramSubject:
        """Whom a prepared name means."""

    def refuse_early(self, subject: ScramSubject) -> LoginResult | None:
        """The throttled answer, or None when the attempt may go on."""

    def failure(self, subject: ScramSubject, started: float, detail: str) -> Awaitable[LoginResult]:
        """Count a failure and answer it in its own time."""

    def success(self, subject: ScramSubject, credential: Credential, authzid: str) -> LoginResult:
        """The proof was right: whether the login is allowed."""

    def now(self) -> float:
        """Monotonic seconds."""


def scram_keys(salt: bytes, iterations: int, password: str) -> ScramKeys:
    """The verifier of a password (RFC 5802 §3)."""
    salted = hashlib.pbkdf2_hmac("sha256", (saslprep(password) or password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return ScramKeys(salt, iterations, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))


class ScramExchange(SaslExchange):
    """Four messages: client-first, server-first, client-final, server-final (acknowledged by an empty response)."""

    def __init__(self, backend: ScramBackend, entropy: Entropy, bindings: Mapping[str, bytes], *, plus: bool) -> None:
        self.mechanism = "SCRAM-SHA-256-PLUS" if plus else "SCRAM-SHA-256"
        self._backend = backend
        self._entropy = entropy
        self._bindings = bindings  # type → data; none: -PLUS was not offered
        self._plus = plus
        self._state = "first"
        self._subject: ScramSubject | None = None
        self._result: LoginResult | None = None
        self._authzid = ""
        self._bare = self._server_first = self._nonce = ""
        self._channel = b""  # what c= must be

    async def step(self, response: bytes | None) -> bytes | LoginResult:
        """The next message of the server, or the result."""
        if self._state == "first" and response is None:
            self._state = "asked"
            return b""  # RFC 5802 §5: the client speaks first
        if self._state == "proven":
            # The server's signature was sent as a challenge; all that may follow is the empty response.
            self._state = "spent"
            return self._result if self._result is not None and not response else malformed()
        if response is None or len(response) > limits.SASL_MESSAGE_BYTES_MAX:
            return malformed()
        try:
            text = response.decode()
        except UnicodeDecodeError:
            return malformed()
        if self._state in ("first", "asked"):
            return await self._client_first(text)
        if self._state == "challenged":
            return await self._client_final(text)
        return malformed()

    async def _client_first(self, text: str) -> bytes | LoginResult:
        self._state = "spent"
        match = _CLIENT_FIRST.fullmatch(text)
        if match is None or _BAD_ESCAPE.search(match["name"]) or _BAD_ESCAPE.search(match["authzid"] or ""):
            return malformed()
        if (match["binding"] is not None) != self._plus:
            return malformed()  # RFC 5802 §6: "p" goes with -PLUS and only with it
        name = _unescape(match["name"])
        subject = self._subject = self._backend.subject(saslprep(name) or name)
        if (refused := self._backend.refuse_early(subject)) is not None:
            return refused
        if match["flag"] == "y" and self._bindings:
            # §6: the client believes that we don't support binding, although we offered it: someone removed it from the list.
            return await self._backend.failure(subject, self._backend.now(), "scram-downgrade")
        self._channel = match["gs2"].encode()
        if self._plus:
            binding = self._bindings.get(match["binding"])
            if binding is None:
                return await self._backend.failure(subject, self._backend.now(), "scram-binding-type")
            self._channel += binding
        self._authzid = _unescape(match["authzid"] or "")
        if self._authzid == name:
            self._authzid = ""
        self._bare = match["bare"]
        self._nonce = match["nonce"] + base64.b64encode(self._entropy.bytes(limits.SCRAM_NONCE_BYTES)).decode("ascii")
        salt = base64.b64encode(subject.salt).decode("ascii")
        self._server_first = f"r={self._nonce},s={salt},i={subject.iterations}"
        self._state = "challenged"
        return self._server_first.encode()

    async def _client_final(self, text: str) -> bytes | LoginResult:
        self._state = "spent"
        subject, started = self._subject, self._backend.now()
        assert subject is not None
        # Again: many exchanges may have been opened before the first of them failed.
        if (refused := self._backend.refuse_early(subject)) is not None:
            return refused
        match = _CLIENT_FINAL.fullmatch(text)
        if match is None:
            return malformed()
        proof, channel = sasl_decode(match["proof"].encode()), sasl_decode(match["channel"].encode())
        if proof is None or channel is None or len(proof) != 32:
            return malformed()
        if match["nonce"] != self._nonce or not hmac.compare_digest(channel, self._channel):
            return await self._backend.failure(subject, started, "scram-binding")
        message = f"{self._bare},{self._server_first},{match['unproven']}".encode()
        proven = _proven(subject.candidates, message, proof)
        if proven is None:
            return await self._backend.failure(subject, started, "scram-proof")
        credential, keys = proven
        self._result = self._backend.success(subject, credential, self._authzid)
        if self._result.mailbox is None:
            return self._result
        self._state = "proven"
        return b"v=" + base64.b64encode(hmac.digest(keys.server_key, message, "sha256"))


def _proven(candidates: tuple[Credential, ...], message: bytes, proof: bytes) -> tuple[Credential, ScramKeys] | None:
    for credential in candidates:
        keys = credential.scram
        assert keys is not None
        signature = hmac.digest(keys.stored_key, message, "sha256")
        client_key = bytes(a ^ b for a, b in zip(signature, proof, strict=True))
        if hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
            return credential, keys
    return None


def _unescape(text: str) -> str:
    return text.replace("=2C", ",").replace("=3D", "=")

"""Password verifiers: PHC strings `$argon2id$…` and `$sha256$<salt>$<digest>`, and the memory of passwords that were right.

`$sha256$` is for generated passwords of 128 bits: salt and digest in base64 without padding, digest = SHA-256(salt ‖ UTF-8 password).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence

import argon2
from argon2 import low_level

from mailpod.limits import auth as limits
from mailpod.ports import Clock, Entropy

ARGON2_PREFIX = "$argon2id$"
SHA256_PREFIX = "$sha256$"


def sha256_matches(verifier: str, password: bytes) -> bool:
    """Whether a `$sha256$` verifier is this password's; False for one that can't be read."""
    parts = verifier.split("$")
    if len(parts) != 4:
        return False
    salt, digest = _unpadded(parts[2]), _unpadded(parts[3])
    if salt is None or digest is None or len(digest) != 32:
        return False
    return hmac.compare_digest(hashlib.sha256(salt + password).digest(), digest)


def sha256_verifier(salt: bytes, password: str) -> str:
    """The `$sha256$` verifier of a generated password."""
    digest = hashlib.sha256(salt + password.encode()).digest()
    return f"{SHA256_PREFIX}{_padless(salt)}${_padless(digest)}"


def argon2_verifier(salt: bytes, password: str) -> str:
    """The `$argon2id$` verifier of a password that a person chose. Slow on purpose: call it through `ports.Offload`."""
    return low_level.hash_secret(
        password.encode(), salt, limits.ARGON2_PASSES, limits.ARGON2_MEMORY_KIB, limits.ARGON2_LANES, 32, low_level.Type.ID
    ).decode("ascii")


def argon2_within_limits(verifier: str) -> bool:
    """Whether a verifier is well formed and asks for no more work than a pod may be made to do."""
    try:
        parameters = argon2.extract_parameters(verifier)
    except (argon2.exceptions.InvalidHashError, ValueError):
        return False
    return (
        parameters.memory_cost <= limits.ARGON2_MEMORY_KIB_MAX
        and parameters.time_cost <= limits.ARGON2_PASSES_MAX
        and parameters.parallelism <= limits.ARGON2_LANES_MAX
    )


def argon2_first_match(verifiers: Sequence[str], passwords: Sequence[bytes]) -> int:
    """Index of the first verifier that one of `passwords` fits, or -1. Slow on purpose: call it through `ports.Offload`.

    Without verifiers as much work is done as for one, so that an unknown user costs what a known one does.
    """
    if not verifiers:
        for password in passwords:
            low_level.hash_secret_raw(
                password, b"\0" * 16, limits.ARGON2_PASSES, limits.ARGON2_MEMORY_KIB, limits.ARGON2_LANES, 32, low_level.Type.ID
            )
        return -1
    for index, verifier in enumerate(verifiers):
        for password in passwords:
            try:
                if low_level.verify_secret(verifier.encode("ascii"), password, low_level.Type.ID):
                    return index
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                continue
    return -1


def _unpadded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _padless(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode("ascii")


class SuccessCache:
    """Passwords that were right, as HMACs under a key of this process, for minutes. A changed verifier makes an entry worthless."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._key = entropy.bytes(32)
        self._expiries: OrderedDict[bytes, float] = OrderedDict()  # HMAC → monotonic expiry

    def key(self, verifier: str, password: bytes) -> bytes:
        """The entry's name; a verifier holds no NUL, so the two can't be confused."""
        return hmac.digest(self._key, verifier.encode() + b"\0" + password, "sha256")

    def __contains__(self, key: bytes) -> bool:
        expiry = self._expiries.get(key)
        if expiry is None:
            return False
        if self._clock.monotonic() >= expiry:
            del self._expiries[key]
            return False
        return True

    def __len__(self) -> int:
        return len(self._expiries)

    def remember(self, key: bytes) -> None:
        """Keep a success; the oldest gives way when there are too many."""
        self._expiries[key] = self._clock.monotonic() + limits.SUCCESS_CACHE_S
        self._expiries.move_to_end(key)
        while len(self._expiries) > limits.SUCCESS_CACHE_ENTRIES:
            self._expiries.popitem(last=False)

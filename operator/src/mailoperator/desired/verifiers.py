"""Passwords to verifiers: argon2id and SCRAM keys for given ones, a salted SHA-256 for generated ones.

A salt is not random: it is a keyed fingerprint of the password (HMAC under a key that only the operator holds), so an old verifier whose
salt is the expected one belongs to the unchanged password and is used again. Hashing anew at each look would cost 20 ms a mailbox and
change files in which nothing changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stringprep
from typing import Final
from unicodedata import ucd_3_2_0

from argon2 import low_level

from mailpod.contract import Credential, Protocol, ScramKeys

# OWASP's first choice for argon2id: 19 ms and 19 MiB a guess (ARCHITECTURE, Dependencies). The pod uses the same figures.
MEMORY_KIB: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1
HASH_BYTES: Final = 32
SALT_BYTES: Final = 16
# RFC 7677 §4 asks for at least 4,096; clients compute them at each login, so phones set the upper end (10 ms here).
# The same for generated passwords: the count is told to anybody who asks for a name, and must not tell names apart.
SCRAM_ITERATIONS: Final = 20_000
# 128 bits cannot be guessed, so generated passwords need no slow hash.
GENERATED_BYTES: Final = 16
# What a PHC string made elsewhere may ask of a pod: more would let one mailbox's owner slow down everybody's logins.
PHC_MEMORY_KIB_MAX: Final = 64 * 1024
PHC_PASSES_MAX: Final = 8
PHC_LANES_MAX: Final = 4
_PHC: Final = re.compile(r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}\Z")


def fingerprint(key: bytes, purpose: str, address: str, name: str, password: bytes) -> bytes:
    """The salt of this password of this mailbox: nobody without `key` learns anything from it."""
    fields = (purpose.encode(), address.encode(), name.encode(), password)
    return hmac.digest(key, b"".join(len(field).to_bytes(4, "big") + field for field in fields), "sha256")[:SALT_BYTES]


def given(
    key: bytes, address: str, name: str, password: str, protocols: tuple[Protocol, ...] | None, previous: Credential | None
) -> Credential:
    """Verifiers of a password that a person chose; those of `previous` where they are this password's."""
    salt = fingerprint(key, "argon2id", address, name, password.encode())
    head = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${_padless(salt)}$"
    if previous is not None and previous.verifier.startswith(head):
        verifier = previous.verifier
    else:
        verifier = low_level.hash_secret(password.encode(), salt, PASSES, MEMORY_KIB, LANES, HASH_BYTES, low_level.Type.ID).decode()
    # SCRAM tells the client one salt for a user, before it knows which password will come: only the mailbox's own can have it.
    scram = _scram(key, address, password, previous) if not name else None
    return Credential(name=name, verifier=verifier, scram=scram, protocols=protocols)


def generated(key: bytes, address: str, password: str, previous: Credential | None) -> Credential:
    """The verifiers of a password made by `generate`; the SCRAM keys of `previous` where they are this password's."""
    salt = fingerprint(key, "sha256", address, "", password.encode())
    digest = hashlib.sha256(salt + password.encode()).digest()
    scram = _scram(key, address, password, previous)
    return Credential(name="", verifier=f"$sha256${_padless(salt)}${_padless(digest)}", scram=scram)


def generate(random: bytes) -> str:
    """A password of `GENERATED_BYTES` random bytes: lower case letters and digits in groups, easy to type on a phone."""
    assert len(random) == GENERATED_BYTES, "the length is the strength"
    text = base64.b32encode(random).decode().rstrip("=").lower()
    return "-".join(text[start : start + 7] for start in range(0, len(text), 7))


def phc_fault(verifier: str) -> str:
    """Why a given PHC string is not usable; "" when it is."""
    found = _PHC.match(verifier)
    if found is None:
        return "must be an argon2id verifier such as $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>"
    memory, passes, lanes = (int(text) for text in found.groups())
    if not (8 <= memory <= PHC_MEMORY_KIB_MAX and 1 <= passes <= PHC_PASSES_MAX and 1 <= lanes <= PHC_LANES_MAX):
        return f"must ask for at most m={PHC_MEMORY_KIB_MAX}, t={PHC_PASSES_MAX}, p={PHC_LANES_MAX}"
    return ""


def _scram(key: bytes, address: str, password: str, previous: Credential | None) -> ScramKeys | None:
    prepared = saslprep(password)
    if not prepared:
        return None  # such a password works with PLAIN and LOGIN only
    salt = fingerprint(key, "scram", address, "", password.encode())
    old = previous.scram if previous is not None else None
    if old is not None and old.salt == salt and old.iterations == SCRAM_ITERATIONS:
        return old
    # RFC 5802 §3.
    salted = hashlib.pbkdf2_hmac("sha256", prepared.encode(), salt, SCRAM_ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return ScramKeys(salt=salt, iterations=SCRAM_ITERATIONS, stored_key=stored, server_key=hmac.digest(salted, b"Server Key", "sha256"))


def saslprep(text: str) -> str:
    """RFC 4013 for a password that is stored: "" where it is prohibited or has unassigned code points."""
    mapped = "".join(" " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char))
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    prohibited = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if any(table(char) for char in prepared for table in prohibited):
        return ""
    if any(stringprep.in_table_d1(char) for char in prepared):  # RFC 3454 §6: right-to-left text all of one direction
        ends = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(stringprep.in_table_d2(char) for char in prepared):
            return ""
    return prepared


def _padless(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()

"""Limits of logging in."""

from __future__ import annotations

from typing import Final

# Longest login name: local part 64 + "@" + domain 255 (RFC 5321 §4.5.3.1), in bytes of UTF-8, before normalisation.
LOGIN_BYTES_MAX: Final = 320
# Longest password: whoever sends more is filling memory, not typing. In bytes of UTF-8.
PASSWORD_BYTES_MAX: Final = 1024
# One SASL message after base64: two names, a password, a channel binding and nonces fit several times over.
SASL_MESSAGE_BYTES_MAX: Final = 8192

# The work of one password check (OWASP's profile for argon2id); the operator hashes with the same, so a made-up check costs the same.
ARGON2_MEMORY_KIB: Final = 19 * 1024
ARGON2_PASSES: Final = 2
ARGON2_LANES: Final = 1
# A verifier brought along from elsewhere may ask for more work, up to here: beyond it one login could exhaust the pod.
ARGON2_MEMORY_KIB_MAX: Final = 64 * 1024
ARGON2_PASSES_MAX: Final = 8
ARGON2_LANES_MAX: Final = 4
# Slow checks at one time: more only fight for the same cores and memory (each holds ARGON2_MEMORY_KIB).
ARGON2_CONCURRENCY: Final = 2
# Logins that wait for one of those; beyond it the answer is "try again" at once. 400 wait about 4 s on two cores.
ARGON2_WAITING_MAX: Final = 400
# Slow verifiers tried for one login: a mailbox has one password of its own and a few for apps.
ARGON2_PER_LOGIN_MAX: Final = 32

# A password that was right is remembered (as a keyed hash) for so long, so that polling clients cost no slow hash.
SUCCESS_CACHE_S: Final = 600.0
# About 150 bytes each.
SUCCESS_CACHE_ENTRIES: Final = 16_384

# Every failure is answered at a multiple of this after the attempt began, whatever was checked on the way: equal time for
# known and unknown users, and a brake. Well above one slow check.
FAILURE_QUANTUM_S: Final = 0.5

# Failures before an address (IPv4 /32, IPv6 /64) has to wait: an office behind one address mistypes now and then.
ADDRESS_FREE_FAILURES: Final = 20
# Failures before an account has to wait, from addresses that never logged in to it.
ACCOUNT_FREE_FAILURES: Final = 8
# The wait doubles with each failure, from the first to the last of these.
THROTTLE_DELAY_S_MIN: Final = 1.0
ADDRESS_DELAY_S_MAX: Final = 900.0
# Lower than an address's: an account's wait also hits its owner on a new device.
ACCOUNT_DELAY_S_MAX: Final = 300.0
# An address or account without a failure for so long starts anew. Longer than the longest wait, or waiting would clear it.
THROTTLE_FORGET_S: Final = 3600.0
# Rows of each throttling table, about 200 bytes each; the longest unchanged one gives way.
THROTTLE_ENTRIES_MAX: Final = 65_536
# An address that logged in to an account is not held up by other people's guessing at it, for so long after.
KNOWN_ADDRESS_S: Final = 86_400.0
KNOWN_ADDRESS_ENTRIES_MAX: Final = 65_536

# SCRAM (RFC 7677 §4 asks for at least 4096): what the operator uses. Shown for names without keys until a real key has been seen.
SCRAM_ITERATIONS: Final = 20_000
SCRAM_SALT_BYTES: Final = 16
SCRAM_NONCE_BYTES: Final = 18

"""Limits of the pod's inner HTTP server, of wake-ups between pods, and of configuration reload."""

from __future__ import annotations

from typing import Final

REQUEST_BYTES_MAX: Final = 256 * 1024  # a notification of NOTIFY_COMMITS_MAX logs with long addresses fits twice
# A notification is only a hint to look at the bucket, and one seen before changes nothing, so replaying it gains nobody anything.
# The window is wide because pods' clocks may be an hour apart (in either direction) and should still wake each other.
SIGNATURE_AGE_S_MAX: Final = 2 * 3600 + 300

NOTIFY_COMMITS_MAX: Final = 512  # logs in one POST
NOTIFY_PENDING_MAX: Final = 8192  # logs waiting for one slow peer; beyond it wake-ups are dropped (its own polling finds them)
NOTIFY_INTERVAL_S: Final = 0.008  # at most 125 POSTs a second and peer; the first commit after a pause goes at once
NOTIFY_TIMEOUT_S: Final = 2.0  # a peer that takes longer is gone or overloaded: it will look by itself
NOTIFY_BACKOFF_S_MAX: Final = 5.0  # between attempts to a peer that does not answer
PEER_RESOLVE_S: Final = 10.0  # how often the peers' one DNS name is looked up
PEERS_MAX: Final = 64

STATUS_ACCOUNTS_MAX: Final = 64  # addresses in one question for usage; each may open an account
METRICS_AGE_S: Final = 0.2  # renderings are shared for so long, so that several scrapers cost one

HEARTBEAT_S: Final = 0.5  # between two measurements of the event loop's lag
LOOP_LAG_S_MAX: Final = 30.0  # a loop that was blocked for so long is not alive

CONFIG_POLL_S: Final = 1.0  # a changed mount is noticed within a second; reading it costs a few file reads
CONFIG_FILE_BYTES_MAX: Final = 4 * 1024**2  # a Secret holds 1 MiB
CONFIG_FILES_MAX: Final = 256  # 64 shards and a handful of others
CONFIG_READ_ATTEMPTS: Final = 5  # a directory swapped while it was read is read again

PROBE_RETRY_S: Final = 5.0  # between attempts to reach a bucket that does not answer at start
DRAIN_SESSIONS_S: Final = 20.0  # sessions have so long to end their command and hear BYE or 421
DRAIN_STORE_S: Final = 60.0  # then what is accepted has so long to become durable; the grace period is 120 s
TERMINATION_MESSAGE_BYTES_MAX: Final = 4096  # Kubernetes keeps no more

"""Limits of the account log."""

from __future__ import annotations

from typing import Final

# --- Entries and commits ---------------------------------------------------------------------------------------------------
# One entry: large enough that bursts cost few PUTs, small enough that a PUT takes well under a second and a reader's memory is bounded.
ENTRY_BYTES_MAX: Final = 8 * 1024 * 1024
# Larger bodies go to an object of their own, in pieces that can be read one by one.
BIG_BODY_BYTES_MIN: Final = 8 * 1024 * 1024
BIG_PIECE_BYTES: Final = 1024 * 1024
# The largest body at all: above contract.max_message_bytes' widest sensible value; a piece list stays small.
BODY_BYTES_MAX: Final = 512 * 1024 * 1024
# Messages in one entry: their index is 16 bits wide in the columns.
ENTRY_MESSAGES_MAX: Final = 4096
# Operations in one entry.
ENTRY_REQUESTS_MAX: Final = 4096
# What may wait for one log's committer; beyond it the caller is told to try again (a store that is down must not fill memory).
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
QUEUE_REQUESTS_MAX: Final = 16_384
# Operations above this size are compressed in the entry; below, it costs more than it saves.
OPERATIONS_COMPRESS_BYTES_MIN: Final = 1024
# Decompressed operations of one entry: a flag change of 1,000,000 scattered messages takes 8 MB.
OPERATIONS_BYTES_MAX: Final = 64 * 1024 * 1024
# Bodies below this are stored as they are.
BODY_COMPRESS_BYTES_MIN: Final = 128
# Preparing (summary, compression) larger messages happens away from the event loop.
PREPARE_OFFLOAD_BYTES_MIN: Final = 256 * 1024
# A commit that the store has not answered clearly for so long is in doubt: SMTP clients wait 600 s (RFC 5321 §4.5.3.2.6), people less.
COMMIT_DOUBT_S: Final = 60.0
# One request of ours, whatever the adapter does: above the adapter's own REQUEST_TIMEOUT_S and its repeats.
REQUEST_DEADLINE_S: Final = 100.0
# Waits between attempts, doubled each time, with jitter.
RETRY_DELAY_S_MIN: Final = 0.05
RETRY_DELAY_S_MAX: Final = 5.0

# --- Reading a log ----------------------------------------------------------------------------------------------------------
# First range read of an entry: header, operations and the summaries of a usual one.
ENTRY_HEAD_READ_BYTES: Final = 64 * 1024
# Entries read at once while catching up.
CATCH_UP_WIDTH_MAX: Final = 16
# How often a 404 below an existing number is asked again before it counts as a gap (which must not exist).
GAP_RETRIES: Final = 3
# A replay hands the event loop back after so many entries.
REPLAY_YIELD_ENTRIES: Final = 64

# --- Snapshots ----------------------------------------------------------------------------------------------------------------
SNAPSHOT_ENTRIES_MIN: Final = 16  # a small mailbox's interval
SNAPSHOT_ENTRIES_MAX: Final = 256  # so that a cold open is a few round trips
SNAPSHOT_TAIL_FRACTION: Final = 4  # between the two: when operations since weigh a quarter of a snapshot
SNAPSHOT_ROW_BYTES: Final = 12  # measured: what a message takes in a snapshot
SNAPSHOT_BASE_BYTES: Final = 512
SNAPSHOT_CLEAN_EVERY: Final = 8  # snapshots written between two looks at what may go
SNAPSHOT_BYTES_MAX: Final = 1024 * 1024 * 1024  # refused when larger: a wrong length must not fill memory
SNAPSHOTS_TRIED_MAX: Final = 64  # older ones tried before starting from entry 1
SNAPSHOTS_NEWEST_KEPT: Final = 2
SNAPSHOT_DAY_S: Final = 86_400.0

# --- Accounts -----------------------------------------------------------------------------------------------------------------
FOLDERS_MAX: Final = 5000
FOLDER_NAME_BYTES_MAX: Final = 1000
FOLDER_DEPTH_MAX: Final = 32
SUBSCRIPTIONS_MAX: Final = 10_000
KEYWORD_BYTES_MAX: Final = 255
CHUNK_ROWS: Final = 16_384  # measured best between copying on write and overhead per chunk
CHUNK_ROWS_FIRST: Final = 16  # a new folder's first chunk; grows fourfold
# What is remembered of expunges for QRESYNC, per folder; beyond it clients compare UIDs (RFC 7162 §3.2.5.2 allows it).
VANISHED_RECORDS_MAX: Final = 8192
VANISHED_UIDS_MAX: Final = 2_000_000
MARKERS_MAX: Final = 64  # resumable imports in progress
MARKER_BYTES_MAX: Final = 4096
EMAIL_ID_MAX: Final = 2**32 - 1
UID_MAX: Final = 2**32 - 1
UIDVALIDITY_MAX: Final = 2**32 - 1

# --- What a pod holds in memory ------------------------------------------------------------------------------------------
ACCOUNTS_WARM_MAX: Final = 1024  # kept open though no session uses them
ACCOUNTS_WARM_BYTES_MAX: Final = 256 * 1024 * 1024
ACCOUNT_IDLE_S: Final = 900.0
SUMMARY_CACHE_BYTES: Final = 64 * 1024 * 1024
BODY_CACHE_BYTES: Final = 64 * 1024 * 1024  # in memory; the local disk's is configured
BODY_CACHE_ITEM_BYTES_MAX: Final = 8 * 1024 * 1024
QUARANTINE_RETRY_S: Final = 300.0  # a quarantined log is read anew after so long: somebody may have mended it

# --- Reading bodies ------------------------------------------------------------------------------------------------------------
READ_JOIN_BYTES: Final = 1024 * 1024  # neighbours are joined into ranges of this size
READ_JOIN_GAP_BYTES: Final = 64 * 1024  # a hole that is cheaper to read than to ask around
READ_AHEAD_BYTES_MAX: Final = 32 * 1024 * 1024  # of ranges in flight or waiting, for one reader
READ_RANGES_IN_FLIGHT: Final = 8
READ_SMALL_RANGES_IN_FLIGHT: Final = 32  # when ranges are small: round trips, not bytes, are what one waits for
READ_SMALL_RANGE_BYTES: Final = 128 * 1024

# --- Summary segments ------------------------------------------------------------------------------------------------------
SEGMENT_ROWS_MIN: Final = 256  # summaries not in any segment before one is written
SEGMENT_ROWS_MAX: Final = 8192
SEGMENT_GROUP_ROWS: Final = 128  # read at once: the newest 50 messages take one or two
SUMMARY_BYTES_MAX: Final = 4 * 1024 * 1024

# --- Transit ----------------------------------------------------------------------------------------------------------------------
TRANSIT_LOGS: Final = 64
TRANSIT_RECIPIENTS_MAX: Final = 1000
TRANSIT_PREFIX_BYTES_MAX: Final = 16 * 1024
HOLD_TTL_S: Final = 60.0  # a log that is not empty and has not changed for so long, by the watcher's own clock, is adopted
HOLD_RENEW_S: Final = 15.0
TRANSIT_SCAN_S: Final = 30.0  # how often a pod looks for logs that nobody works off
TRANSIT_DELIVERIES_IN_FLIGHT: Final = 16
TRANSIT_RETRY_S_MIN: Final = 0.5
TRANSIT_RETRY_S_MAX: Final = 60.0
TRANSIT_CACHE_BYTES: Final = 32 * 1024 * 1024  # accepted bodies kept until delivered, so that they need not be read back
TRANSIT_RECLAIM_ENTRIES: Final = 64  # finished entries before their bodies are dropped
TRANSIT_PENDING_MAX: Final = 20_000  # messages in one log; beyond it senders are told to try again
DRAIN_TRANSIT_S_MAX: Final = 60.0  # another pod adopts what is left

# --- Forgetting -------------------------------------------------------------------------------------------------------------------
RECLAIM_EVERY_S: Final = 86_400.0
MAINTAINED_MAX: Final = 100_000  # addresses whose last look is remembered
RECLAIM_ATTEMPTS_MAX: Final = 8  # when commits of others come between
FORGET_IN_FLIGHT: Final = 8
# A partly dead entry's living bodies are moved when that is cheap or when most of it is dead.
RELOCATE_LIVING_BYTES_MAX: Final = 1024 * 1024
RELOCATE_DEAD_FRACTION: Final = 0.5
PURGE_ROUNDS_MAX: Final = 8

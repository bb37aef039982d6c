"""What one IMAP session may hold, do and wait for."""

from __future__ import annotations

from typing import Final

# Waiting. RFC 9051 §5.4: at least 30 minutes once logged in.
IDLE_TIMEOUT_BEFORE_LOGIN_S: Final = 60.0  # nobody types a password by hand for longer
IDLE_TIMEOUT_S: Final = 31 * 60.0
REFRESH_IDLE_S: Final = 60.0  # while sessions IDLE, their account asks the store this often (STORAGE.md, Committing 5)
REFRESH_NOOP_S: Final = 1.0  # NOOP and CHECK take a picture that is no older
REFRESH_TICK_S: Final = 5.0  # how often the pod looks which accounts are due
REFRESH_CONCURRENT_MAX: Final = 8  # accounts refreshed at once, so that many idlers are no burst to the bucket

# Logging in. The authenticator throttles; this only bounds one connection.
LOGIN_FAILURES_MAX: Final = 5

# Input and output.
PIPELINE_BYTES_MAX: Final = 256 * 1024  # received while a command runs; beyond it the connection stops reading
COMMANDS_REJECTED_MAX: Final = 100  # BAD answers in a row: what speaks here is no IMAP client
WRITE_BYTES_MAX: Final = 256 * 1024  # one write (TLS is fastest at 80-330 KB)
PUSH_SESSIONS_PER_TURN: Final = 25  # idle sessions written to in one loop turn, so that other work gets its turn
PUSH_LINES_MAX: Final = 2000  # lines pushed to an idle session in one write (some 100 KB); more goes out at the client's speed

# Folders.
FOLDER_NAME_BYTES_MAX: Final = 1000  # a whole path in UTF-8
FOLDER_LEVELS_MAX: Final = 32  # levels of one path
LIST_FOLDERS_MAX: Final = 20_000  # lines of one LIST

# Resynchronizing (RFC 7162 §3.2.5.2): numbers in the sample that a client sends; RFC 7162 has clients send some dozens.
QRESYNC_SAMPLE_MAX: Final = 100_000

# Reading.
FETCH_BATCH_ROWS: Final = 2048  # messages whose summaries are in memory at once during one FETCH
FETCH_PART_BYTES: Final = 1024 * 1024  # a longer literal is read and sent in ranges of this size: sessions hold no whole message
FETCH_RANGES_AHEAD: Final = 4  # such ranges in flight for one literal
FETCH_WHOLE_BYTES_MAX: Final = 8 * 1024 * 1024  # smaller messages are read whole when several are asked for, as the store reads ahead
DECODE_OFFLOAD_BYTES_MIN: Final = 256 * 1024  # decoding takes about 1 ms for as much: more of it happens in a thread
SECTION_DECODE_BYTES_MAX: Final = 64 * 1024 * 1024  # BINARY decodes a part in memory; a larger one is NO [LIMIT]
SUMMARY_COLUMN_FRACTION: Final = 8  # reading more than 1/8 of a folder: its whole column is cheaper than single summaries
ACCOUNT_MESSAGES_MAX: Final = 2**32 - 1  # of an account; UIDs are 32 bits wide. RFC 9208 §5.2 wants a number

# Adding.
APPEND_BYTES_MAX: Final = 150 * 1024 * 1024  # one message, whatever a domain allows: it is in memory until it is committed
APPEND_TOTAL_BYTES_MAX: Final = 200 * 1024 * 1024  # all messages of one MULTIAPPEND, likewise
APPEND_POD_BYTES_MAX: Final = 400 * 1024 * 1024  # messages being received by all sessions of a pod together

# Searching.
SEARCH_READ_BYTES_MAX: Final = 8 * 1024**3  # message bytes that one SEARCH reads, then NO [LIMIT]
SEARCH_SECONDS_MAX: Final = 120.0  # one SEARCH with texts, then NO [LIMIT]
SEARCH_BATCH_ROWS: Final = 2048  # messages whose summaries are in memory at once
COLUMN_OFFLOAD_BYTES_MIN: Final = 16 * 1024 * 1024  # a search through a summary column of this size takes some 5 ms: in a thread
SEARCH_BATCH_BYTES: Final = 4 * 1024 * 1024  # bodies handed to a thread at once
SEARCH_TEXT_KEYS_MAX: Final = 32  # keys of one SEARCH that look into bodies or other headers; each costs a pass over them
SORT_MESSAGES_MAX: Final = 1_000_000  # results of one SORT or THREAD

# ID (RFC 2971) fields that are logged: the client's name and version are worth knowing, the rest is not ours to keep.
ID_FIELDS_LOGGED: Final = ("name", "version", "vendor")
ID_VALUE_CHARS_LOGGED: Final = 80

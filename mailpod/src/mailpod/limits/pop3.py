"""Limits of POP3 sessions."""

from __future__ import annotations

from typing import Final

# RFC 2449 §4 asks for 255 bytes with CRLF; a long password may need more.
COMMAND_BYTES_MAX: Final = 2_048
# One line of a SASL exchange (RFC 5034 §4: 12,288 bytes with CRLF).
SASL_LINE_BYTES_MAX: Final = 12_288
# Longest answer line (RFC 2449 §4), CRLF included.
RESPONSE_BYTES_MAX: Final = 512
# Commands that wait behind a running one, in bytes; beyond it the client is not read.
PIPELINED_BYTES_MAX: Final = 16_384
# Commands answered in one turn of the loop; then others have theirs.
COMMANDS_PER_TURN: Final = 100
# Commands in a row that make no sense, until the session ends.
BAD_COMMANDS_MAX: Final = 20
# Failed logins until the session ends; the brakes on guessing are `limits.auth`'s.
FAILED_LOGINS_MAX: Final = 5

# Silence before login, and in all until login: nobody needs longer to type a password into a program.
LOGIN_IDLE_S: Final = 60.0
LOGIN_S_MAX: Final = 300.0
# RFC 1939 §3: at least 10 minutes; a little more, so that a client's own 10-minute NOOP arrives in time.
IDLE_S: Final = 630.0
# Sessions of one account in one pod: each may hold READ_AHEAD_BYTES.
SESSIONS_PER_ACCOUNT_MAX: Final = 32

# A message is read and sent in pieces of this size; bulk writes are fastest between 80 and 330 KB.
READ_PIECE_BYTES: Final = 256 * 1024
# The first piece for TOP: most headers fit, and then one read does.
TOP_FIRST_PIECE_BYTES: Final = 16 * 1024
# Messages of up to a piece are fetched ahead of a client that goes from one to the next, so that it does not wait for the bucket.
READ_AHEAD_BYTES: Final = 512 * 1024
READ_AHEAD_MESSAGES: Final = 64
# Lines of LIST and UIDL made at a time, about 60 KB.
LISTING_LINES: Final = 4_096

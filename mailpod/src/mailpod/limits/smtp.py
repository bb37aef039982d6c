"""Limits of SMTP: lines, transactions, sessions, time, memory."""

from __future__ import annotations

from typing import Final

# --- Lines -----------------------------------------------------------------------------------------------------------------------
# RFC 5321 §4.5.3.1.4 asks for 512 octets, and extensions add to MAIL (SIZE 26, BODY 16, SMTPUTF8 10, AUTH 500) and to paths in UTF-8.
COMMAND_LINE_BYTES_MAX: Final = 2048
# RFC 4954 §4: a SASL response may be up to 12,288 octets.
AUTH_LINE_BYTES_MAX: Final = 12_288 + 64
# How much of a line that is too long is skipped in wait for its end; a client that sends more is closed.
LINE_SKIP_BYTES_MAX: Final = 64 * 1024
# RFC 5321 §4.5.3.1.2: a domain, also in EHLO.
DOMAIN_BYTES_MAX: Final = 255
# ESMTP parameters in one command: more than all known extensions together define.
PARAMETERS_MAX: Final = 16
# A chunk size has at most this many digits (RFC 3030 §2: chunk-size is 1*DIGIT); more cannot be a size that is accepted.
BDAT_SIZE_DIGITS_MAX: Final = 20

# --- Transactions ----------------------------------------------------------------------------------------------------------------
# RFC 5321 §4.5.3.1.8 asks for at least 100. One transit entry holds all of them.
RECIPIENTS_MAX: Final = 1000
# RCPT commands in one transaction, refused ones included: a list server may pipeline its whole list and take 452 for most of it.
RECIPIENT_COMMANDS_MAX: Final = 5000
# RFC 9422: transactions in one session; a client that wants more connects again, which lets balancers spread the load.
TRANSACTIONS_MAX: Final = 1000
# What is still skipped after a message has grown beyond SIZE, before the connection is closed instead.
OVERSIZE_SKIP_BYTES_MAX: Final = 64 * 1024 * 1024
# RFC 5321 §6.3: a large number of Received lines (at least 100 is the RFC's advice; this product's cases say 50) is a loop.
RECEIVED_HEADERS_MAX: Final = 50

# --- Behaviour -------------------------------------------------------------------------------------------------------------------
# Commands that did not work in one session before it is closed: a confused client or a scanner, never a mail server.
ERRORS_MAX: Final = 20
# Commands that move no mail (NOOP, RSET, VRFY, EHLO, …) between two messages.
IDLE_COMMANDS_MAX: Final = 200
# Logins that failed in one session; the authenticator throttles across sessions.
AUTH_FAILURES_MAX: Final = 5
# Unknown recipients of one client address before its further ones are answered slowly.
UNKNOWN_RECIPIENTS_FREE: Final = 5
# Each further one waits longer by this, up to the longest delay. RFC 5321 §4.5.3.2.3 gives RCPT 5 minutes on the client's side.
UNKNOWN_RECIPIENT_DELAY_STEP_S: Final = 0.5
UNKNOWN_RECIPIENT_DELAY_MAX_S: Final = 5.0
# Unknown recipients of one session before it is closed with 421.
UNKNOWN_RECIPIENTS_MAX: Final = 50
# A client address' count of unknown recipients halves in this time, so that honest errors are forgiven.
UNKNOWN_RECIPIENTS_HALF_LIFE_S: Final = 300.0
# Client addresses remembered for that (some 200 B each); the oldest goes first.
UNKNOWN_RECIPIENTS_PEERS_MAX: Final = 10_000

# --- Sessions --------------------------------------------------------------------------------------------------------------------
# Of all SMTP listeners of a pod together: some 40 KB each with TLS.
SESSIONS_MAX: Final = 2000
# Of one client address: more than any mail server opens, less than would let one client take the pod.
SESSIONS_PER_PEER_MAX: Final = 100
# From this share of SESSIONS_MAX on, sessions that do nothing are let go of sooner, so that new ones find room.
SESSIONS_PRESSURE_SHARE: Final = 0.75
LISTEN_BACKLOG: Final = 1024

# --- Time ------------------------------------------------------------------------------------------------------------------------
# RFC 5321 §4.5.3.2.7: a server waits 5 minutes for the next command.
COMMAND_TIMEOUT_S: Final = 300.0
# The same when sessions are scarce.
COMMAND_TIMEOUT_PRESSED_S: Final = 15.0
# Until the first transaction or login a client has nothing to think about.
FIRST_COMMAND_TIMEOUT_S: Final = 60.0
# A message comes at least this fast, averaged from its start, after a time of grace (slowloris). A 1,200 baud line does it.
DATA_BYTES_PER_S_MIN: Final = 100.0
DATA_GRACE_S: Final = 60.0
# RFC 5321 §4.5.3.2.5: 3 minutes between two blocks of data.
DATA_BLOCK_TIMEOUT_S: Final = 180.0
# A session that lasts longer is closed at its next idle moment (twice as long in a transaction): no certificate is kept for ever.
SESSION_LIFETIME_S: Final = 3600.0
# From end of data to our answer. RFC 5321 §4.5.3.2.6 gives 10 minutes, but people's mail programs give up after 60-100 s, and a client
# that gives up before us sends the message again although we may have it.
DELIVERY_TIMEOUT_S: Final = 50.0
# The store's answer at RCPT (opening an account): clients wait 5 minutes, people do not.
RECIPIENT_TIMEOUT_S: Final = 25.0
TLS_HANDSHAKE_TIMEOUT_S: Final = 20.0
# How long a connection that we closed may take to get its last bytes out before it is cut.
CLOSE_LINGER_S: Final = 20.0
# How often idle sessions are looked for: one pass over all instead of a timer for each command.
SWEEP_PERIOD_S: Final = 2.0
# A reply that a client does not read for this long ends the session.
WRITE_TIMEOUT_S: Final = 120.0

# --- Memory ----------------------------------------------------------------------------------------------------------------------
# Message bodies that are being received or committed, all sessions together.
BODIES_IN_FLIGHT_BYTES_MAX: Final = 384 * 1024 * 1024
# Input that came while a command was running, before reading is paused.
PENDING_INPUT_BYTES_MAX: Final = 256 * 1024
# Replies that wait for a client to read them, before reading is paused (a client that pipelines and never reads).
PENDING_OUTPUT_BYTES_MAX: Final = 64 * 1024

# --- Quota -----------------------------------------------------------------------------------------------------------------------
# A mailbox that looks full may have been emptied through another pod: the store is asked again when the picture is older than this.
USAGE_MAX_AGE_FULL_S: Final = 10.0
# A mailbox that was this empty this short a time ago is not looked at again at RCPT; its delivery looks.
USAGE_NOTE_AGE_S: Final = 5.0
USAGE_NOTE_SHARE: Final = 0.9
USAGE_NOTES_MAX: Final = 10_000

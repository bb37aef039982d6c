"""What an IMAP client may make the server hold, parse and repeat."""

from __future__ import annotations

from typing import Final

# Framing, before login: enough for LOGIN and for AUTHENTICATE with an initial response, and nothing more.
LINE_BYTES_MAX_BEFORE_LOGIN: Final = 16 * 1024  # all of a command's text without its literals
LITERAL_BYTES_MAX_BEFORE_LOGIN: Final = 4 * 1024  # all literals of one command together (user name, password)
LITERALS_MAX_BEFORE_LOGIN: Final = 8  # in one command

# Framing, after login.
LINE_BYTES_MAX: Final = 1024 * 1024  # a UID set of some 100,000 numbers still fits (RFC 9051 §4 asks for far less)
LITERAL_BYTES_MAX: Final = 256 * 1024  # all literals of one command together, messages of APPEND apart
LITERALS_MAX: Final = 1000  # in one command, messages of APPEND apart
LITERAL_DIGITS_MAX: Final = 20  # number64 (RFC 9051 §9) has at most 19

# What is read and thrown away after a refusal, so that the connection stays usable; beyond it, BYE.
DISCARD_BYTES_MAX_BEFORE_LOGIN: Final = 64 * 1024
DISCARD_BYTES_MAX: Final = 128 * 1024 * 1024  # a refused message of twice the usual size limit

APPEND_MESSAGES_MAX: Final = 1000  # in one MULTIAPPEND (RFC 3502): they are one commit
APPEND_CHUNK_BYTES_MIN: Final = 16 * 1024  # smaller pieces of a message literal are gathered, so that bytes cost bytes
AUTHENTICATE_LINE_BYTES_MAX: Final = 16 * 1024  # one base64 line of a SASL exchange
IDLE_LINE_BYTES_MAX: Final = 64  # "DONE"

# Grammar.
TAG_BYTES_MAX: Final = 128  # it is echoed, so it is bounded
FLAGS_MAX: Final = 256  # in one list of a command
FLAG_BYTES_MAX: Final = 255  # one keyword
MAILBOX_BYTES_MAX: Final = 1024  # one name, as decoded UTF-8
LIST_PATTERNS_MAX: Final = 64  # in one LIST (RFC 5258)
FETCH_ITEMS_MAX: Final = 256  # in one FETCH
HEADER_FIELDS_MAX: Final = 256  # in one BODY[HEADER.FIELDS (...)]
HEADER_FIELD_BYTES_MAX: Final = 255  # one field name
SECTION_DEPTH_MAX: Final = 128  # numbers in BODY[1.2.3...]: deeper than any message that is parsed
SEARCH_NODES_MAX: Final = 2000  # keys and operators in one search program
SEARCH_DEPTH_MAX: Final = 48  # OR, NOT and parentheses within each other: evaluation may recurse over the tree
SEARCH_TEXT_BYTES_MAX: Final = 4096  # one string searched for
SORT_CRITERIA_MAX: Final = 16
ID_PAIRS_MAX: Final = 30  # RFC 2971 §3.3
ID_VALUE_BYTES_MAX: Final = 1024  # RFC 2971 §3.3
ID_FIELD_BYTES_MAX: Final = 128  # RFC 2971 §3.3 says 30; a client that says more about itself does no harm
ENABLE_MAX: Final = 64  # capabilities in one ENABLE
QUOTA_RESOURCES_MAX: Final = 16  # in one SETQUOTA
SET_RANGES_MAX: Final = 150_000  # ranges in one sequence set; a line of LINE_BYTES_MAX holds no more than some 500,000
STATUS_ITEMS_MAX: Final = 32

# Answers.
RENDER_ROWS: Final = 4096  # messages rendered in one chunk: one write each, some 200 KB of FETCH (UID FLAGS)
RENDER_BYTES: Final = 512 * 1024  # chunks of larger values (ENVELOPE) are cut at about this size
RESPONSE_TEXT_BYTES_MAX: Final = 512  # human text in a status response

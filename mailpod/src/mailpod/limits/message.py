"""What one message may make us parse, keep and render. SMTP refuses by the first group; the parsers hold to the rest."""

from __future__ import annotations

from typing import Final

# Refused at the end of DATA or APPEND (`message.validate`).
HEADER_BYTES_MAX: Final = 256 * 1024  # the header section; Postfix cuts at 100 KB, DKIM-signed mail with ARC chains stays below 40 KB
HEADER_FIELDS_MAX: Final = 2_000  # fields in the header section; 30 to 80 are usual
LINE_BYTES_MAX: Final = 1024 * 1024  # RFC 5321 §4.5.3.1.6 asks for 1,000; real mail breaks that, and byte ranges don't care

# The MIME scanner. More than that is refused from outside; in bytes that are stored already it stays in the last part it belongs to.
MIME_DEPTH_MAX: Final = 100  # multiparts and messages within each other
MIME_PARTS_MAX: Final = 2_000  # parts of one message; a digest of a busy list has some hundred
MIME_HEADER_BYTES_MAX: Final = 64 * 1024  # of the header of one part, or of one embedded message, that is looked at
MIME_HEADERS_BYTES_MAX: Final = 1024 * 1024  # of all headers of one message together; parts after that count as text/plain
BOUNDARY_BYTES_MAX: Final = 1_000  # RFC 2046 §5.1.1 says 70; longer ones occur
DELIMITER_TAIL_BYTES_MAX: Final = 1_000  # white space after a boundary on its line
SCAN_PASSES_MAX: Final = 16  # how often the bytes may be searched through for boundaries (once for each level of nesting) …
SCAN_BYTES_MIN: Final = 64 * 1024 * 1024  # … but at least so many bytes
SCAN_CANDIDATE_BYTES: Final = 512  # what a line counts for that begins like a boundary and is none: a Python step, not a memory search
PARAMETERS_MAX: Final = 128  # of one Content-Type or Content-Disposition, continuations counted (RFC 2231 §3)
PARAMETER_BYTES_MAX: Final = 8 * 1024  # one value, continuations joined
LANGUAGES_MAX: Final = 64  # tags in one Content-Language

# Addresses and other fields of the envelope.
ADDRESSES_MAX: Final = 5_000  # of one header field; later ones are left out of ENVELOPE and of SEARCH's columns
ADDRESS_BYTES_MAX: Final = 256 * 1024  # of one address field that is parsed
ADDRESS_TOKENS_MAX: Final = 40_000  # atoms, specials and comments of one field that is written in unusual ways: 2 µs each
POLICY_FIELD_BYTES_MAX: Final = 16 * 1024  # a From or Sender that is longer names nobody
COMMENT_DEPTH_MAX: Final = 1_000  # nested comments in an address field; deeper ones are text
PATH_BYTES_MAX: Final = 1_024  # RFC 5321 §4.5.3.1.3 demands 256; bounce addresses that carry another address are longer
LOCAL_PART_BYTES_MAX: Final = 255  # RFC 5321 §4.5.3.1.1 demands 64 octets; same reason
DOMAIN_BYTES_MAX: Final = 255  # RFC 5321 §4.5.3.1.2
REFERENCES_MAX: Final = 200  # message ids kept of References: the first and the newest (a thread of that depth is a script)
MESSAGE_ID_BYTES_MAX: Final = 998  # one line
SUBJECT_CHARS_MAX: Final = 4_096  # kept for SEARCH and SORT; the message itself keeps all
FIELD_TEXT_CHARS_MAX: Final = 16 * 1024  # decoded From, To, Cc, Bcc kept for SEARCH
NSTRING_BYTES_MAX: Final = 64 * 1024  # one string in ENVELOPE or BODYSTRUCTURE; longer ones are cut

# Text out of bodies.
PREVIEW_CHARS_MAX: Final = 200  # RFC 8970 §3.1
PREVIEW_SOURCE_BYTES: Final = 4 * 1024  # of a text part looked at first …
PREVIEW_SOURCE_BYTES_MAX: Final = 64 * 1024  # … and when that had no 200 characters (HTML with long style sheets)
TEXT_BYTES_MAX: Final = 4 * 1024 * 1024  # of one part decoded for SEARCH TEXT or BODY
SEARCH_CHARS_MAX: Final = 16 * 1024 * 1024  # of one message's decoded text
CHARSET_NAME_BYTES_MAX: Final = 40  # RFC 2978 §2.3

# Writing.
HEADER_LINE_BYTES: Final = 78  # where fields that we write are folded (RFC 5322 §2.1.1)
DSN_RETURNED_BYTES_MAX: Final = 64 * 1024  # of the original header that is put into a delivery status notification

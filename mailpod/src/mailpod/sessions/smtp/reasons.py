"""Why a session refuses a command, each with its reply (RFC 5321 §4.2.2, RFC 3463, RFC 5248)."""

from __future__ import annotations

from typing import Final

from mailpod.protocol.smtp.reasons import smtp_reason

# --- Order of commands (RFC 5321 §4.1.4) -----------------------------------------------------------------------------------------
NEED_HELO: Final = smtp_reason("need-helo", 503, "5.5.1", "Send EHLO first")
NEED_MAIL: Final = smtp_reason("need-mail", 503, "5.5.1", "Send MAIL first")
NESTED_MAIL: Final = smtp_reason("nested-mail", 503, "5.5.1", "A transaction is open already")
NEED_RCPT: Final = smtp_reason("need-rcpt", 503, "5.5.1", "Send RCPT first")
NO_VALID_RECIPIENTS: Final = smtp_reason("no-valid-recipients", 554, "5.5.1", "No valid recipients")
IN_CHUNKS: Final = smtp_reason("in-chunks", 503, "5.5.1", "Only BDAT, NOOP, RSET and QUIT may follow BDAT")
# RFC 3030 §3: BINARYMIME can only be sent by BDAT.
BINARY_NEEDS_BDAT: Final = smtp_reason("binary-needs-bdat", 503, "5.5.1", "BODY=BINARYMIME needs BDAT")
CHUNK_REFUSED: Final = smtp_reason("chunk-refused", 503, "5.5.1", "A chunk of this message was refused; send RSET")
# RFC 2920 §3.1: DATA is the last command of a group. Were it refused, the client's message would be read as commands.
PIPELINED_DATA: Final = smtp_reason("pipelined-data", 421, "4.5.0", "Content was sent before DATA was answered")
NOT_IMPLEMENTED: Final = smtp_reason("not-implemented", 502, "5.5.1", "Command not implemented")

# --- Security --------------------------------------------------------------------------------------------------------------------
# RFC 3207 §4: 530 for everything but NOOP, EHLO, STARTTLS, QUIT.
NEED_TLS: Final = smtp_reason("need-tls", 530, "5.7.0", "Send STARTTLS first")
# RFC 4954 §6
AUTH_NEEDS_TLS: Final = smtp_reason("auth-needs-tls", 538, "5.7.11", "Encryption is required to authenticate")
NEED_AUTH: Final = smtp_reason("need-auth", 530, "5.7.0", "Authentication required")
TLS_ALREADY: Final = smtp_reason("tls-already", 503, "5.5.1", "TLS is active already")
# RFC 3207 §4
TLS_UNAVAILABLE: Final = smtp_reason("tls-unavailable", 454, "4.7.0", "TLS is not available at the moment")
AUTH_ALREADY: Final = smtp_reason("auth-already", 503, "5.5.1", "Authenticated already")
AUTH_IN_TRANSACTION: Final = smtp_reason("auth-in-transaction", 503, "5.5.1", "AUTH is not allowed in a transaction")
AUTH_MECHANISM: Final = smtp_reason("auth-mechanism", 504, "5.5.4", "Mechanism not offered")
AUTH_ABORTED: Final = smtp_reason("auth-aborted", 501, "5.7.0", "Authentication aborted")
AUTH_BASE64: Final = smtp_reason("auth-base64", 501, "5.5.2", "Cannot decode base64")
AUTH_LINE_TOO_LONG: Final = smtp_reason("auth-line-too-long", 500, "5.5.6", "Authentication exchange line is too long")
AUTH_TOO_MANY: Final = smtp_reason("auth-too-many", 421, "4.7.0", "Too many failed authentications")
LOGIN_GONE: Final = smtp_reason("login-gone", 530, "5.7.0", "The mailbox may no longer send; authenticate again")

# --- Limits ----------------------------------------------------------------------------------------------------------------------
TOO_MANY_RECIPIENTS: Final = smtp_reason("too-many-recipients", 452, "4.5.3", "Too many recipients in one message")
TOO_MANY_TRANSACTIONS: Final = smtp_reason("too-many-transactions", 421, "4.7.0", "Too many messages in one session; connect again")
TOO_MANY_ERRORS: Final = smtp_reason("too-many-errors", 421, "4.7.0", "Too many errors")
TOO_MANY_COMMANDS: Final = smtp_reason("too-many-commands", 421, "4.7.0", "Too many commands without a message")
TOO_MANY_UNKNOWN: Final = smtp_reason("too-many-unknown-recipients", 421, "4.7.0", "Too many unknown recipients")
LINE_OVERRUN: Final = smtp_reason("line-overrun", 421, "4.5.2", "Line is far too long")
OVERSIZE_OVERRUN: Final = smtp_reason("oversize-overrun", 421, "4.3.4", "Message is far too large")
BUSY_MEMORY: Final = smtp_reason("bodies-in-flight", 452, "4.3.1", "Too much mail in flight; try again later")
BUSY_SESSIONS: Final = smtp_reason("too-many-sessions", 421, "4.3.2", "Too many connections; try again later")
BUSY_PEER: Final = smtp_reason("too-many-sessions-of-peer", 421, "4.7.0", "Too many connections from your address")

# --- Time ------------------------------------------------------------------------------------------------------------------------
IDLE: Final = smtp_reason("idle-timeout", 421, "4.4.2", "Timeout: closing the connection")
TOO_SLOW: Final = smtp_reason("too-slow", 421, "4.4.2", "Timeout: data comes too slowly")
LIFETIME: Final = smtp_reason("session-lifetime", 421, "4.4.2", "The session has lasted too long; connect again")

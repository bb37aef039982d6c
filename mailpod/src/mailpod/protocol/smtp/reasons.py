"""What can be wrong with the form of what an SMTP client sends, each with its reply (RFC 5321 §4.2, RFC 3463, RFC 5248)."""

from __future__ import annotations

from mailpod.errors import Reason


def smtp_reason(name: str, code: int, enhanced: str, text: str) -> Reason:
    """A reason that only SMTP gives."""
    return Reason(name, code, enhanced, "NO", "", "", text)


LINE_TOO_LONG = smtp_reason("line-too-long", 500, "5.5.6", "Command line too long")
BARE_NEWLINE = smtp_reason("bare-newline", 500, "5.5.2", "Lines have to end with CRLF")
CONTROL_CHARACTER = smtp_reason("control-character", 500, "5.5.2", "NUL or bare CR in a command line")
UNKNOWN_COMMAND = smtp_reason("unknown-command", 500, "5.5.1", "Command not recognized")
COMMAND_SYNTAX = smtp_reason("command-syntax", 501, "5.5.4", "Syntax error in the arguments")
NO_ARGUMENTS = smtp_reason("no-arguments", 501, "5.5.4", "This command takes no arguments")
HELO_SYNTAX = smtp_reason("helo-syntax", 501, "5.5.4", "HELO and EHLO take a host name or an address literal")
MAIL_SYNTAX = smtp_reason("mail-syntax", 501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]")
RCPT_SYNTAX = smtp_reason("rcpt-syntax", 501, "5.5.4", "Syntax: RCPT TO:<address>")
BDAT_SYNTAX = smtp_reason("bdat-syntax", 501, "5.5.4", "Syntax: BDAT size [LAST]")
PARAMETER_SYNTAX = smtp_reason("parameter-syntax", 501, "5.5.4", "Syntax error in a parameter")
PARAMETER_UNKNOWN = smtp_reason("parameter-unknown", 555, "5.5.4", "Parameter not recognized")
SENDER_SYNTAX = smtp_reason("bad-sender-address", 501, "5.1.7", "Bad sender address syntax")
RECIPIENT_SYNTAX = smtp_reason("bad-recipient-address", 501, "5.1.3", "Bad recipient address syntax")
# RFC 6531 §3.5: the code for an address that needs the extension which was not asked for.
SENDER_NEEDS_SMTPUTF8 = smtp_reason("sender-needs-smtputf8", 550, "5.6.7", "Non-ASCII sender address without SMTPUTF8")
RECIPIENT_NEEDS_SMTPUTF8 = smtp_reason("recipient-needs-smtputf8", 553, "5.6.7", "Non-ASCII recipient address without SMTPUTF8")

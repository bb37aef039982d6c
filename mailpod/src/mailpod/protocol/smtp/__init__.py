"""SMTP's wire language, sans-IO: bytes to commands and content, replies to bytes. RFC 5321, 1870, 2034, 2920, 3030, 4954, 6531.

Charter: no policy, no transaction, no sockets. Every limit holds before the bytes are kept. What is wrong comes back as a `Reason`, which
knows its reply.
"""

from mailpod.protocol.smtp.commands import (
    MailCommand,
    RcptCommand,
    parse_bdat,
    parse_helo,
    parse_mail,
    parse_rcpt,
    split_command,
)
from mailpod.protocol.smtp.readers import ChunkReader, ContentReader, DataReader, InputReader, unstuff
from mailpod.protocol.smtp.replies import Fixed, Reply, encode, encode_lines, encode_reason, fixed

__all__ = [
    "ChunkReader",
    "ContentReader",
    "DataReader",
    "Fixed",
    "InputReader",
    "MailCommand",
    "RcptCommand",
    "Reply",
    "encode",
    "encode_lines",
    "encode_reason",
    "fixed",
    "parse_bdat",
    "parse_helo",
    "parse_mail",
    "parse_rcpt",
    "split_command",
    "unstuff",
]

"""What `Reader.next_event` tells the session.

The usual loop: `reader.feed(data)`; then, as long as no command runs, `event = reader.next_event()` until it is None. A command is parsed
only when it is asked for, so that whatever the one before it changed (state, UTF-8, TLS, compression) is in force by then.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from mailpod.protocol.imap.commands import Body


class Command(NamedTuple):
    """A complete, well-formed command, allowed in the reader's state."""

    tag: str
    name: str  # as in the table: "NOOP", "UID FETCH"; a bounded set, good for a metric's label
    body: Body


class ContinuationNeeded(NamedTuple):
    """The client waits with a synchronizing literal that was accepted: write `responses.continuation()`."""

    size: int


class AppendLiteral(NamedTuple):
    """A client wants to send (or is sending) a message of `size` bytes: answer with `Reader.accept_literal` or `Reader.refuse_literal`.

    The session may take its time; nothing more is parsed until it has answered. Whatever it decides before the client sends the
    message of a synchronizing literal spares the transfer (RFC 9051 §6.3.12, RFC 7889 §5).
    """

    tag: str
    mailbox: str
    size: int  # bytes
    position: int  # 0 for the first message of the command
    bytes_before: int  # accepted for the earlier messages of the same command
    synchronizing: bool


class Line(NamedTuple):
    """The line that was asked for by `Reader.expect_line`, without its CRLF: a SASL response, "DONE"."""

    data: bytes


class Rejected(NamedTuple):
    """A command that can't be run: write `responses.tagged(tag, status, text, code)`. What belongs to it has been read and dropped."""

    tag: str  # "*" where the client sent none that can be echoed
    status: str  # "BAD" or "NO"
    code: str  # "" or a response code without brackets
    text: str
    name: str = ""  # the command's, where known


class Fatal(NamedTuple):
    """What follows can't be told apart from a command any more, or is more than may be skipped.

    Write `responses.tagged(tag, status, text, code)` if `tag` is not "*", `responses.bye(text)`, and close. No event follows.
    """

    tag: str
    code: str
    text: str
    status: str = "BAD"


Event: TypeAlias = Command | ContinuationNeeded | AppendLiteral | Line | Rejected | Fatal

"""An entry of the command table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mailpod.protocol.imap.commands import Body
from mailpod.protocol.imap.states import State
from mailpod.protocol.imap.tokenizer import Cursor


class MessageOffer(NamedTuple):
    """A literal that is a message: the session decides on it before it is taken."""

    mailbox: str
    position: int  # of the message in its command, from 0


class LiteralStream(Protocol):
    """A command that carries messages, parsed as it comes in. The cursor stands behind what was consumed before."""

    def offer(self, cursor: Cursor) -> MessageOffer | None:
        """The cursor's text ends with a literal's marker: a message's (its marker is consumed), or an ordinary literal's (None)."""

    def received(self, data: Sequence[bytes], size: int) -> None:
        """The message that was offered last has come."""

    def finish(self, cursor: Cursor) -> Body:
        """The command is complete."""


class Verb(NamedTuple):
    """A command: how it is read, and where it is allowed."""

    name: str  # "FETCH", "UID FETCH"
    states: frozenset[State]
    parse: Callable[[Cursor], Body]  # the cursor stands right behind the name
    stream: Callable[[], LiteralStream] | None = None  # for commands with messages in them

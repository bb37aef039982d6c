"""Reads transcripts and shows events as one line each.

A transcript has `C:` lines (what the client sends, CRLF added; `C-` without it; Python escapes work), `E:` lines (the events that follow,
in order) and directives: `@state`, `@utf8 on|off`, `@append accept` or `@append refuse STATUS CODE text`. After IDLE and AUTHENTICATE
the harness asks for a line, as a session does.
"""

import codecs
import enum
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from mailpod.limits import imap as limits
from mailpod.protocol.imap.commands import Authenticate, Idle
from mailpod.protocol.imap.events import AppendLiteral, Command, Event
from mailpod.protocol.imap.reader import Reader
from mailpod.protocol.imap.sequence_set import SequenceSet
from mailpod.protocol.imap.states import State


def show(value: object) -> str:
    """A compact, stable form: fields with default values are left out."""
    if isinstance(value, SequenceSet):
        return value.encode().decode()
    if isinstance(value, enum.Enum):
        return str(value.value) or "''"
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(show(item) for item in value)) + "}"
    if isinstance(value, msgspec.Struct):
        fields = [item for item in msgspec.structs.fields(value) if getattr(value, item.name) != item.default]
        return type(value).__name__ + "(" + ", ".join(f"{item.name}={show(getattr(value, item.name))}" for item in fields) + ")"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value).__name__ + "(" + ", ".join(show(item) for item in value) + ")"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(show(item) for item in value) + "]"
    return str(value) if hasattr(value, "isoformat") else repr(value)


def show_event(event: Event) -> str:
    if isinstance(event, Command):
        return f"Command {event.tag} {event.name} {show(event.body)}"
    return type(event).__name__ + " " + " ".join(show(item) for item in event)


@dataclass
class Block:
    """Directives, then bytes, then the events they lead to."""

    line: int
    directives: list[list[str]] = field(default_factory=list)
    sent: bytes = b""
    events: list[str] = field(default_factory=list)


def load(path: Path) -> list[Block]:
    blocks = [Block(0)]
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        kind, rest = text[:2], text[3:]
        if not text.strip() or text.startswith("#"):
            continue
        if kind not in ("C:", "C-", "E:") and not text.startswith("@"):
            raise ValueError(f"{path}:{number}: {text!r}")
        if kind != "E:" and blocks[-1].events:
            blocks.append(Block(number))
        if text.startswith("@"):
            blocks[-1].directives.append(text[1:].split(" ", 4))
        elif kind == "E:":
            blocks[-1].events.append(rest)
        else:
            blocks[-1].sent += codecs.decode(rest.encode("latin-1", "backslashreplace"), "unicode_escape").encode("latin-1")
            blocks[-1].sent += b"\r\n" if kind == "C:" else b""
    return blocks


class Player:
    """Plays a session's part: answers AppendLiteral by the policy in force, asks for lines."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.policy = ["accept"]

    def direct(self, directive: list[str]) -> None:
        match directive:
            case ["state", name]:
                self.reader.state = State[name.upper()]
            case ["utf8", switch]:
                self.reader.utf8 = switch == "on"
            case ["append", *policy]:
                self.policy = policy
            case _:
                raise ValueError(directive)

    def events(self) -> list[Event]:
        found = []
        while (event := self.reader.next_event()) is not None:
            found.append(event)
            match event:
                case AppendLiteral():
                    if self.policy[0] == "accept":
                        self.reader.accept_literal()
                    else:
                        self.reader.refuse_literal(self.policy[1], self.policy[3], self.policy[2])
                case Command(body=Idle()):
                    self.reader.expect_line(limits.IDLE_LINE_BYTES_MAX)
                case Command(body=Authenticate()):
                    self.reader.expect_line(limits.AUTHENTICATE_LINE_BYTES_MAX)
                case _:
                    pass
        return found

    def play(self, data: bytes, step: int | None = None) -> list[Event]:
        found = []
        for start in range(0, len(data), step or max(1, len(data))):
            self.reader.feed(data[start : start + step] if step else data)
            found += self.events()
        return found


class Harness:
    """What tests need of this file (test modules cannot import it)."""

    Player = Player
    load = staticmethod(load)
    show_event = staticmethod(show_event)


@pytest.fixture(scope="session")
def harness() -> type[Harness]:
    return Harness

"""From bytes to events: frames commands (lines and literals, RFC 9051 §2.2.1, §4.3, RFC 7888), and parses each when it is asked for.

Memory: what was fed and not yet consumed (the session stops reading when `buffered` grows), one command's text and literals within
`limits.imap`, and messages that the session has accepted; a refused message is counted and dropped as it comes.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from typing import Final, NamedTuple

from mailpod.limits import imap as limits
from mailpod.protocol.imap.events import AppendLiteral, Command, ContinuationNeeded, Event, Fatal, Line, Rejected
from mailpod.protocol.imap.grammar.registry import VERBS
from mailpod.protocol.imap.grammar.verb import LiteralStream, Verb
from mailpod.protocol.imap.states import State
from mailpod.protocol.imap.tokenizer import Cursor, ParseError

# tag = 1*<any ASTRING-CHAR except "+">
_HEAD = re.compile(rb"([!#$&',\-./0-9:;<=>?@A-Z^_`a-z|}~\[\]]+) (?:(UID) )?([A-Za-z0-9=\-]+)", re.IGNORECASE)
_TAG = re.compile(rb"([!#$&',\-./0-9:;<=>?@A-Z^_`a-z|}~\[\]]+)(?: |\Z)")
_MARKER = re.compile(rb"\{([0-9]+)(\+?)\}\Z")
_TAIL_BYTES: Final = 64  # of a line that is skipped: a literal's marker fits


class _Phase(enum.Enum):
    LINE = enum.auto()  # a command's text, from its start or behind a literal
    LITERAL = enum.auto()  # an ordinary literal
    DECIDE = enum.auto()  # the session has to accept or refuse a message
    MESSAGE = enum.auto()  # an accepted message
    SKIP_LITERAL = enum.auto()  # a literal of a command that was rejected
    SKIP_LINE = enum.auto()  # the rest of its line
    RAW = enum.auto()  # one line that is no command
    DEAD = enum.auto()  # after Fatal


class _Marker(NamedTuple):
    """A literal announced at a line's end."""

    digits: bytes
    synchronizing: bool


class Reader:
    """One connection's incoming half. The session sets `state` and `utf8` as they change.

    Use: `feed`, then `next_event` until None; see `events` for what each wants. After `Command(Authenticate | Idle)` call `expect_line`
    before the next `next_event`.
    """

    __slots__ = (
        "_accepted",
        "_buffered",
        "_chunks",
        "_cursor",
        "_gather",
        "_lines",
        "_literal_bytes",
        "_literals",
        "_marker",
        "_message_bytes",
        "_offset",
        "_partial",
        "_phase",
        "_pieces",
        "_raw_max",
        "_refuse_next",
        "_rejection",
        "_skipped",
        "_stream",
        "_tag",
        "_text_bytes",
        "_text_start",
        "_verb",
        "_verbs",
        "_wanted",
        "state",
        "utf8",
    )

    def __init__(self, verbs: dict[str, Verb] | None = None) -> None:
        self.state = State.NOT_AUTHENTICATED
        self.utf8 = False  # ENABLE UTF8=ACCEPT or IMAP4rev2: names and quoted strings are UTF-8
        self._verbs = VERBS if verbs is None else verbs
        self._chunks: deque[bytes] = deque()
        self._offset = 0  # into the first chunk
        self._buffered = 0
        self._partial = bytearray()  # a line's beginning, out of chunks that held no end
        self._phase = _Phase.LINE
        self._raw_max = 0
        self._marker = _Marker(b"", True)
        self._rejection: Rejected | None = None
        self._refuse_next: tuple[str, str, str] | None = None
        self._accepted: bool | None = None
        self._skipped = 0
        self._reset_command()

    def _reset_command(self) -> None:
        self._phase = _Phase.LINE
        self._tag = "*"
        self._verb: Verb | None = None
        self._stream: LiteralStream | None = None
        self._cursor: Cursor | None = None
        self._lines: list[bytes] = []
        self._text_start = 0  # behind the name, in the first line
        self._text_bytes = 0
        self._literals: list[bytes] = []
        self._literal_bytes = 0
        self._message_bytes = 0
        self._wanted = 0  # bytes of the literal still to come
        self._pieces: list[bytes] = []
        self._gather = bytearray()
        self._rejection = None
        self._skipped = 0

    # What the session calls

    def feed(self, data: bytes) -> None:
        """Bytes from the client. They are kept, not copied, until consumed."""
        if data and self._phase is not _Phase.DEAD:
            self._chunks.append(data)
            self._buffered += len(data)

    @property
    def buffered(self) -> int:
        """Bytes fed and not consumed: pause reading while this is large and a command runs."""
        return self._buffered

    @property
    def in_command(self) -> bool:
        """Whether the client is in the middle of a command: an end of input now cuts it off."""
        return bool(self._lines or self._partial or self._cursor is not None or self._phase is not _Phase.LINE)

    def expect_line(self, bytes_max: int) -> None:
        """The next event is a `Line` of at most `bytes_max`, not a command: a SASL response, DONE."""
        assert self._phase is _Phase.LINE
        assert not self._lines
        self._phase = _Phase.RAW
        self._raw_max = bytes_max

    def accept_literal(self) -> None:
        """Take the message of the `AppendLiteral` just told. Synchronizing: the next event is `ContinuationNeeded`."""
        assert self._phase is _Phase.DECIDE
        self._accepted = True

    def refuse_literal(self, status: str, text: str, code: str = "") -> None:
        """Refuse it, with the whole command; `Rejected` follows at once, or when a non-synchronizing literal has been skipped."""
        assert self._phase is _Phase.DECIDE
        self._accepted = False
        self._refuse_next = (status, text, code)

    def discard_buffered(self) -> int:
        """Forget everything that was sent behind the last command; how many bytes (STARTTLS: RFC 9051 §6.2.1, §11.1)."""
        dropped = self._buffered + len(self._partial)
        self._chunks.clear()
        self._partial.clear()
        self._offset = self._buffered = 0
        return dropped

    def take_buffered(self) -> bytes:
        """Take out what was sent behind the last command: after COMPRESS it is compressed (RFC 4978 §3)."""
        data = bytes(self._partial) + b"".join(self._chunks)[self._offset :]
        self.discard_buffered()
        return data

    def next_event(self) -> Event | None:
        """The next thing to act on; None when more bytes, or the session's answer, are needed."""
        while True:
            match self._phase:
                case _Phase.LINE:
                    event = self._read_line()
                case _Phase.LITERAL:
                    event = self._read_literal()
                case _Phase.MESSAGE:
                    event = self._read_message()
                case _Phase.DECIDE:
                    event = self._decided()
                case _Phase.SKIP_LITERAL:
                    event = self._skip_literal()
                case _Phase.SKIP_LINE:
                    event = self._skip_line()
                case _Phase.RAW:
                    event = self._read_raw()
                case _Phase.DEAD:
                    return None
            if event is not _AGAIN:
                assert not isinstance(event, _Again)
                return event

    # Bytes

    def _take_line(self) -> bytes | None:
        """The next line without its line end, once it is there. A bare LF ends a line too; a bare CR is text, which no grammar allows."""
        while self._chunks:
            chunk = self._chunks[0]
            end = chunk.find(b"\n", self._offset)
            if end < 0:
                self._partial += chunk[self._offset :] if self._offset else chunk
                self._consume(len(chunk) - self._offset)
                continue
            line = chunk[self._offset : end]
            self._consume(end + 1 - self._offset)
            if self._partial:
                line = bytes(self._partial) + line
                self._partial.clear()
            return line[:-1] if line.endswith(b"\r") else line
        return None

    def _consume(self, count: int) -> None:
        self._buffered -= count
        self._offset += count
        if self._offset >= len(self._chunks[0]):
            self._chunks.popleft()
            self._offset = 0

    def _take_piece(self) -> bytes:
        """At most `_wanted` bytes of what is there, not empty; a whole chunk is handed over as it is."""
        chunk = self._chunks[0]
        piece = chunk[self._offset : self._offset + self._wanted] if self._offset or len(chunk) > self._wanted else chunk
        self._consume(len(piece))
        self._wanted -= len(piece)
        return piece

    # Lines

    @property
    def _logged_in(self) -> bool:
        return self.state is not State.NOT_AUTHENTICATED

    def _line_bytes_max(self) -> int:
        return limits.LINE_BYTES_MAX if self._logged_in else limits.LINE_BYTES_MAX_BEFORE_LOGIN

    def _discard_bytes_max(self) -> int:
        return limits.DISCARD_BYTES_MAX if self._logged_in else limits.DISCARD_BYTES_MAX_BEFORE_LOGIN

    def _read_line(self) -> Event | _Again | None:
        line = self._take_line()
        room = self._line_bytes_max() - self._text_bytes
        if line is None:
            return self._too_long() if len(self._partial) > room + 1 else None  # the CR may be there already
        if not self._lines and self._cursor is None:
            self._name_command(line)
        marker = _find_marker(line)
        if len(line) > room:
            return self._reject(self._tagged_rejection("BAD", "TOOBIG", "Command line is too long"), marker)
        self._text_bytes += len(line)
        if self._rejection is not None:
            return self._reject(self._rejection, marker)
        try:
            return self._command_line(line, marker)
        except ParseError as error:
            return self._reject(self._tagged_rejection(error.status, error.code, error.text), marker)

    def _too_long(self) -> _Again:
        """A line beyond the limit: drop what there is of it, and go on dropping to its end."""
        if not self._lines and self._cursor is None:
            self._name_command(bytes(self._partial[: limits.TAG_BYTES_MAX * 2]))
        self._rejection = self._tagged_rejection("BAD", "TOOBIG", "Command line is too long")
        self._skipped += len(self._partial)
        del self._partial[:-_TAIL_BYTES]
        self._phase = _Phase.SKIP_LINE
        return _AGAIN

    def _name_command(self, line: bytes) -> None:
        """Read tag and name of a command's first line; what is wrong with them becomes `_rejection` (RFC 9051 §2.2.1)."""
        head = _HEAD.match(line)
        if head is None or len(head[1]) > limits.TAG_BYTES_MAX:
            tag = _TAG.match(line)
            if tag is not None and len(tag[1]) <= limits.TAG_BYTES_MAX:
                self._tag = tag[1].decode("ascii")
                self._rejection = self._tagged_rejection("BAD", "", "Missing command")
            else:
                self._rejection = self._tagged_rejection("BAD", "", "Missing or bad tag")
            return
        self._tag = head[1].decode("ascii")
        name = head[3].decode("ascii").upper()
        if head[2]:
            name = "UID " + name
        verb = self._verbs.get(name)
        if verb is None:
            self._rejection = self._tagged_rejection("BAD", "", "Unknown command")
        elif self.state not in verb.states:
            self._verb = verb
            self._rejection = self._tagged_rejection("BAD", "", f"{name} is not allowed in the {self.state.value} state")
        else:
            self._verb = verb
            self._text_start = head.end()

    def _tagged_rejection(self, status: str, code: str, text: str) -> Rejected:
        return Rejected(self._tag, status, code, text, "" if self._verb is None else self._verb.name)

    def _command_line(self, line: bytes, marker: _Marker | None) -> Event | _Again | None:
        """One line of a command that is in order so far."""
        assert self._verb is not None
        first = not self._lines and self._cursor is None
        text = (line[self._text_start :] if first else line) + (b"" if marker is None else b"\r\n")
        if marker is None and first:
            cursor = Cursor(text, utf8=self.utf8)  # the usual command: one line
            body = self._verb.parse(cursor)
            cursor.end()
            return self._complete(Command(self._tag, self._verb.name, body))
        if self._verb.stream is not None:
            return self._stream_line(text, marker)
        self._lines.append(text)
        if marker is not None:
            return self._ordinary_literal(marker)
        cursor = Cursor(b"".join(self._lines), self._literals, self.utf8)
        body = self._verb.parse(cursor)
        cursor.end()
        return self._complete(Command(self._tag, self._verb.name, body))

    def _complete(self, command: Command) -> Command:
        self._reset_command()
        return command

    def _stream_line(self, text: bytes, marker: _Marker | None) -> Event | _Again | None:
        """A line of a command that carries messages."""
        assert self._verb is not None
        assert self._verb.stream is not None
        if self._stream is None or self._cursor is None:
            self._stream = self._verb.stream()
            self._cursor = Cursor(text, self._literals, self.utf8)
        else:
            self._cursor.extend(text)
        if marker is None:
            body = self._stream.finish(self._cursor)
            self._cursor.end()
            return self._complete(Command(self._tag, self._verb.name, body))
        offer = self._stream.offer(self._cursor)
        if offer is None:
            return self._ordinary_literal(marker)
        if len(marker.digits) > limits.LITERAL_DIGITS_MAX:
            raise ParseError("Message is too big", "TOOBIG", "NO")
        size = int(marker.digits)
        if size == 0:
            raise ParseError("Append cancelled by an empty message", status="NO")  # RFC 3502 §6.3.11
        self._marker = marker
        self._wanted = size
        self._phase = _Phase.DECIDE
        self._accepted = None
        return AppendLiteral(self._tag, offer.mailbox, size, offer.position, self._message_bytes, marker.synchronizing)

    # Literals

    def _ordinary_literal(self, marker: _Marker) -> Event | _Again | None:
        """Room is checked before anything is taken: an announced size allocates nothing."""
        bytes_max = limits.LITERAL_BYTES_MAX if self._logged_in else limits.LITERAL_BYTES_MAX_BEFORE_LOGIN
        count_max = limits.LITERALS_MAX if self._logged_in else limits.LITERALS_MAX_BEFORE_LOGIN
        if len(self._literals) >= count_max:
            raise ParseError("Too many literals", "LIMIT")
        if len(marker.digits) > limits.LITERAL_DIGITS_MAX or self._literal_bytes + int(marker.digits) > bytes_max:
            raise ParseError("Literal is too big", "TOOBIG")
        self._wanted = int(marker.digits)
        self._literal_bytes += self._wanted
        self._phase = _Phase.LITERAL
        return ContinuationNeeded(self._wanted) if marker.synchronizing else _AGAIN

    def _read_literal(self) -> _Again | None:
        while self._wanted and self._chunks:
            self._gather += self._take_piece()
        if self._wanted:
            return None
        self._literals.append(bytes(self._gather))
        self._gather.clear()
        self._phase = _Phase.LINE
        return _AGAIN

    def _decided(self) -> Event | _Again | None:
        if self._accepted is None:
            return None
        if self._accepted:
            self._accepted = None
            self._message_bytes += self._wanted
            self._phase = _Phase.MESSAGE
            return ContinuationNeeded(self._wanted) if self._marker.synchronizing else _AGAIN
        assert self._refuse_next is not None
        status, text, code = self._refuse_next
        self._accepted = self._refuse_next = None
        return self._reject(self._tagged_rejection(status, code, text), self._marker)

    def _read_message(self) -> _Again | None:
        """Chunks are kept as they came; only small ones are gathered, so that a slow client's message is no list of single bytes."""
        while self._wanted and self._chunks:
            piece = self._take_piece()
            if self._gather or len(piece) < limits.APPEND_CHUNK_BYTES_MIN:
                self._gather += piece
                if len(self._gather) < limits.APPEND_CHUNK_BYTES_MIN and self._wanted:
                    continue
                self._flush_gathered()
            else:
                self._pieces.append(piece)
        if self._wanted:
            return None
        self._flush_gathered()
        assert self._stream is not None
        pieces, self._pieces = self._pieces, []
        self._stream.received(pieces, sum(map(len, pieces)))
        self._phase = _Phase.LINE
        return _AGAIN

    def _flush_gathered(self) -> None:
        if self._gather:
            self._pieces.append(bytes(self._gather))
            self._gather.clear()

    # Rejections: the rest of the command is read and dropped first, so that it is not taken for commands

    def _reject(self, rejection: Rejected, marker: _Marker | None) -> Event | _Again:
        """Reject the command whose line has just ended, with the literal that it announced.

        RFC 7888 §4, RFC 9051 §4.3: a client waiting for a continuation gets its answer at once and sends nothing more; a
        non-synchronizing literal comes regardless.
        """
        skipped = self._skipped
        if marker is None or marker.synchronizing:
            self._reset_command()
            return rejection
        size = int(marker.digits) if len(marker.digits) <= limits.LITERAL_DIGITS_MAX else None
        if size is None or skipped + size > self._discard_bytes_max():
            return self._die(rejection if rejection.code else rejection._replace(code="TOOBIG", text="Literal is too big"))
        self._reset_command()
        self._rejection = rejection
        self._skipped = skipped + size
        self._wanted = size
        self._phase = _Phase.SKIP_LITERAL
        return _AGAIN

    def _die(self, rejection: Rejected) -> Fatal:
        self._reset_command()
        self.discard_buffered()
        self._phase = _Phase.DEAD
        return Fatal(rejection.tag, rejection.code, rejection.text, rejection.status)

    def _skip_literal(self) -> _Again | None:
        while self._wanted and self._chunks:
            self._take_piece()
        if self._wanted:
            return None
        self._phase = _Phase.SKIP_LINE
        return _AGAIN

    def _skip_line(self) -> Event | _Again | None:
        """Drop a rejected command's text; only its tail is kept, to see whether another literal follows."""
        assert self._rejection is not None
        rejection = self._rejection
        before = self._buffered
        line = self._take_line()
        self._skipped += before - self._buffered
        if self._skipped > self._discard_bytes_max():
            return self._die(rejection)
        if line is None:
            del self._partial[:-_TAIL_BYTES]
            return None
        return self._reject(rejection, _find_marker(line))

    # Lines that are no commands

    def _read_raw(self) -> Event | None:
        line = self._take_line()
        if (len(self._partial) - 1 if line is None else len(line)) > self._raw_max:  # the CR may be there already
            return self._die(Rejected("*", "BAD", "TOOBIG", "Line is too long"))
        if line is None:
            return None
        self._phase = _Phase.LINE
        return Line(line)


class _Again:
    """Nothing to tell: go on with the next phase."""


_AGAIN: Final = _Again()


def _find_marker(line: bytes) -> _Marker | None:
    """The literal that a line announces at its end."""
    if not line.endswith(b"}"):
        return None
    match = _MARKER.search(line, max(0, len(line) - _TAIL_BYTES))
    if match is None:
        return None
    return _Marker(match[1], not match[2])

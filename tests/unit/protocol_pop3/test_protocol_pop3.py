"""POP3's pure parts: lines, commands, response lines, stuffing, TOP."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits import pop3 as limits
from mailpod.protocol.pop3 import commands, responses
from mailpod.protocol.pop3.commands import CommandError
from mailpod.protocol.pop3.lines import LineReader, Oversize
from mailpod.protocol.pop3.text import DotStuffer, TopCutter


def lines_of(pieces: list[bytes]) -> list[bytes | Oversize]:
    reader, found = LineReader(), []
    for piece in pieces:
        reader.feed(piece)
        while (line := reader.next()) is not None:
            found.append(line)
    return found


def test_lines() -> None:
    """Commands end in CRLF; someone at a keyboard sends LF; an unfinished line is no command."""
    assert lines_of([b"USER alice\r\nPASS x y\nNOOP\r", b"\nQUI"]) == [b"USER alice", b"PASS x y", b"NOOP"]
    assert lines_of([b"\r\n\n"]) == [b"", b""]


@given(data=st.lists(st.sampled_from([b"A", b"\r", b"\n", b"\r\n", b"x" * 1500, b"\0"]), max_size=30), cut=st.integers(1, 2000))
@settings(max_examples=150, deadline=None)
def test_lines_do_not_depend_on_packets(data: list[bytes], cut: int) -> None:
    """The network cuts anywhere: the same bytes are the same commands."""
    whole = b"".join(data)
    assert lines_of([whole]) == lines_of([whole[i : i + cut] for i in range(0, len(whole), cut)]) == lines_of([bytes([b]) for b in whole])


@pytest.mark.case(10)
def test_long_line_costs_no_memory_and_one_answer() -> None:
    """A megabyte without an end is thrown away while it comes, and the session goes on behind it."""
    reader = LineReader()
    for _ in range(1024):
        reader.feed(b"x" * 1024)
        assert reader.next() is None
        assert len(reader) <= limits.COMMAND_BYTES_MAX + 1024
    reader.feed(b"x\r\nNOOP\r\n")
    assert reader.next() is Oversize.LINE
    assert reader.next() == b"NOOP"
    assert reader.next() is None


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"noop", "NOOP", b""),
        (b"PASS a  b ", "PASS", b"a  b "),
        (b"UTF8", "UTF8", b""),
        ("USER müller".encode(), "USER", "müller".encode()),
    ],
)
def test_commands(line: bytes, verb: str, argument: bytes) -> None:
    """Verbs in any case; a password keeps its spaces (RFC 1939 §7)."""
    assert commands.parse(line) == (verb, argument)


@pytest.mark.parametrize("line", [b"", b" NOOP", b"NO-OP", b"X" * 40, b"USER a\0b", b"USER a\rb", b"USER \x7f", "ÜSER x".encode()])
def test_no_commands(line: bytes) -> None:
    """Control characters never get as far as a name or a password."""
    with pytest.raises(CommandError):
        commands.parse(line)


@given(line=st.binary(max_size=100))
@settings(max_examples=200)
def test_any_line_is_a_command_or_an_error(line: bytes) -> None:
    """Whatever comes, nothing else is raised, and what passes is clean."""
    try:
        command = commands.parse(line)
        commands.words(command, 0, 2)
        commands.number(command.argument)
        commands.text(command.argument)
    except CommandError as error:
        wire = responses.err(error.text, error.code)
    else:
        wire = command.argument + b"\r\n"
        assert command.argument.isdigit()
    assert wire.count(b"\r\n") == 1


@pytest.mark.parametrize("word", [b"", b"-1", b"+1", b"1_0", b"0x1", b"99999999999", "٣".encode(), b"1.0"])
def test_numbers_are_digits(word: bytes) -> None:
    """Python's int() takes much more than POP3 does."""
    with pytest.raises(CommandError):
        commands.number(word)


@pytest.mark.case(8)
def test_response_is_one_line() -> None:
    """Whatever stands in a name, a response can't be split or grow."""
    assert responses.ok("a\r\n+OK b\x1c\u2028é") == b"+OK a??+OK b???\r\n"
    assert responses.err("no", "SYS/TEMP") == b"-ERR [SYS/TEMP] no\r\n"
    assert len(responses.err("x" * 1000)) == limits.RESPONSE_BYTES_MAX
    assert responses.ok() == b"+OK\r\n"


def stuffed(pieces: list[bytes]) -> bytes:
    stuffer = DotStuffer()
    return b"".join(stuffer.feed(piece) for piece in pieces) + stuffer.end()


def unstuffed(wire: bytes) -> bytes:
    """What a strict client makes of a response: lines end in CRLF."""
    assert wire.endswith(b".\r\n")
    body: list[bytes] = []
    lines = wire.split(b"\r\n")
    for number, line in enumerate(lines):
        if line == b".":
            assert lines[number + 1 :] == [b""], "the response ends early"
            return b"".join(line + b"\r\n" for line in body)
        body.append(line[1:] if line.startswith(b".") else line)
    raise AssertionError("no end")


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"..\r\na.\r\n.b\r\n", b"...\r\na.\r\n..b\r\n.\r\n"),
        (b"a\r\n\r\n.\r\n", b"a\r\n\r\n..\r\n.\r\n"),
        (b"a\n.\r\n+OK\r\n", b"a\n..\r\n+OK\r\n.\r\n"),
        (b"a\n", b"a\n\r\n.\r\n"),
    ],
)
def test_stuffing(text: bytes, wire: bytes) -> None:
    """RFC 1939 §3, and lone dots behind a bare LF, which would end the message for lenient clients."""
    assert stuffed([text]) == wire
    assert stuffed([bytes([b]) for b in text]) == wire


@given(parts=st.lists(st.sampled_from([b".", b"\r\n", b"a", b"..", b"\r\n.\r\n", b" "]), max_size=20), cut=st.integers(1, 7))
@settings(max_examples=150)
def test_stuffing_is_undone_byte_for_byte(parts: list[bytes], cut: int) -> None:
    """What the client has after unstuffing is what was stored (plus a last line end), wherever the pieces were cut."""
    text = b"".join(parts)
    wire = stuffed([text[i : i + cut] for i in range(0, len(text), cut)])
    assert wire == stuffed([text])
    assert unstuffed(wire) == (text if not text or text.endswith(b"\r\n") else text + b"\r\n")


def top(pieces: list[bytes], lines: int) -> bytes:
    cutter, out = TopCutter(lines), b""
    for piece in pieces:
        out += cutter.feed(piece)
        if cutter.done:
            break
    return out


MESSAGE = b"A: 1\r\nB: 2\r\n\r\none\r\ntwo\r\n\r\nthree"


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (0, b"A: 1\r\nB: 2\r\n\r\n"),
        (1, b"A: 1\r\nB: 2\r\n\r\none\r\n"),
        (3, b"A: 1\r\nB: 2\r\n\r\none\r\ntwo\r\n\r\n"),
        (4, MESSAGE),
        (10**9, MESSAGE),
    ],
)
def test_top(lines: int, shown: bytes) -> None:
    """RFC 1939 §7, in one piece and byte by byte."""
    assert top([MESSAGE], lines) == shown
    assert top([bytes([b]) for b in MESSAGE], lines) == shown


def test_top_of_odd_messages() -> None:
    """No header, only a header, bare LF: TOP ends where the blank line is, if there is one."""
    assert top([b"\r\nbody\r\nmore\r\n"], 1) == b"\r\nbody\r\n"
    assert top([b"A: 1\r\nno body"], 0) == b"A: 1\r\nno body"
    assert top([b"A: 1\n\nx\ny\n"], 1) == b"A: 1\n\nx\n"
    assert top([b"A: 1\r\n\rx\r\n\r\nend"], 0) == b"A: 1\r\n\rx\r\n\r\n"


@given(
    parts=st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\r\n\r\n"]), max_size=20), cut=st.integers(1, 5), lines=st.integers(0, 4)
)
@settings(max_examples=200)
def test_top_does_not_depend_on_pieces(parts: list[bytes], cut: int, lines: int) -> None:
    """However the store cuts a message, TOP shows the same."""
    text = b"".join(parts)
    assert top([text], lines) == top([text[i : i + cut] for i in range(0, len(text), cut)], lines)

"""Framing, limits, and the conversation about messages, beyond what transcripts show."""

import tracemalloc
from typing import Any

import pytest

from mailpod.limits import imap as limits
from mailpod.protocol.imap.commands import Append, Idle, Login, Noop
from mailpod.protocol.imap.events import AppendLiteral, Command, ContinuationNeeded, Fatal, Line, Rejected
from mailpod.protocol.imap.reader import Reader
from mailpod.protocol.imap.states import State


def reader(state: State = State.SELECTED) -> Reader:
    made = Reader()
    made.state = state
    return made


def take(made: Reader) -> Any:
    return made.next_event()


def drain(made: Reader) -> list[Any]:
    events = []
    while (event := made.next_event()) is not None:
        events.append(event)
    return events


def send(made: Reader, data: bytes) -> list[Any]:
    made.feed(data)
    return drain(made)


# Literals: cases 10 and 11


@pytest.mark.case(10)
@pytest.mark.parametrize("state", [State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED])
@pytest.mark.parametrize("verb", [b"LOGIN", b"SELECT", b"NOSUCH", b"UID FETCH 1"])
def test_huge_nonsynchronizing_literal_ends_the_connection(state, verb):
    """Anyone could make the server wait for 4 GiB, or hold them."""
    tracemalloc.start()
    events = send(reader(state), b"a " + verb + b" {4294967295+}\r\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(event) for event in events] == [Fatal]
    assert events[0].tag == "a"
    assert peak < 200_000


@pytest.mark.case(10)
@pytest.mark.parametrize("size", [b"4294967295", b"9" * 19, b"9" * 40])
def test_huge_synchronizing_literal_is_refused_and_the_connection_lives(size):
    """A client that announces too much is told so, and its next command is served."""
    made = reader(State.NOT_AUTHENTICATED)
    assert send(made, b"a LOGIN {" + size + b"}\r\n") == [Rejected("a", "BAD", "TOOBIG", "Literal is too big", "LOGIN")]
    assert send(made, b"b NOOP\r\n") == [Command("b", "NOOP", Noop())]


@pytest.mark.case(10)
@pytest.mark.parametrize(
    ("state", "verb", "most"),
    [
        (State.NOT_AUTHENTICATED, b"LOGIN", limits.LITERALS_MAX_BEFORE_LOGIN),
        (State.SELECTED, b"SEARCH", limits.LITERALS_MAX),
    ],
)
def test_ten_thousand_literals(state, verb, most):
    """One command of endless literals would grow without end; it is refused and dropped, and others are served."""
    made = reader(state)
    events = send(made, b"a " + verb + b" {1+}\r\nx" * 10_000 + b"\r\nb NOOP\r\n")
    if state is State.NOT_AUTHENTICATED:  # the rest is more than may be skipped
        assert events == [Fatal("a", "LIMIT", "Too many literals")]
    else:
        assert events == [Rejected("a", "BAD", "LIMIT", "Too many literals", verb.decode()), Command("b", "NOOP", Noop())]
    synchronizing = reader(state)
    assert send(synchronizing, b"a " + verb + b" {1}\r\n") == [ContinuationNeeded(1)]
    for _ in range(most - 1):
        assert send(synchronizing, b"x {1}\r\n") == [ContinuationNeeded(1)]
    assert send(synchronizing, b"x {1}\r\n") == [Rejected("a", "BAD", "LIMIT", "Too many literals", verb.decode())]


def test_literals_of_one_command_share_their_limit():
    """Many literals just below the limit would add up."""
    made = reader(State.NOT_AUTHENTICATED)
    half = limits.LITERAL_BYTES_MAX_BEFORE_LOGIN // 2
    assert send(made, b"a LOGIN {%d}\r\n" % half) == [ContinuationNeeded(half)]
    assert send(made, b"x" * half + b" {%d}\r\n" % half) == [ContinuationNeeded(half)]
    assert send(made, b"x" * half + b" {1}\r\n")[0].code == "TOOBIG"


@pytest.mark.case(11)
@pytest.mark.parametrize(
    "command",
    [
        b"SEARCH " + b"(" * 1_000_000,
        b"SEARCH " + b"NOT " * 250_000 + b"ALL",
        b"SEARCH " + b"OR ALL " * 140_000 + b"ALL",
        b"SEARCH " + b"(NOT OR ALL " * 60_000 + b"ALL",
        b"SEARCH" + b" ALL" * 100_000,
        b"FETCH 1 " + b"(" * 1_000_000,
        b"FETCH 1 (" + b"UID " * 200_000 + b"UID)",
        b"FETCH 1 BODY[" + b"1." * 400_000 + b"1]",
        b"STORE 1 FLAGS (" + b"x " * 400_000 + b"x)",
        b'LIST "" ' + b"(" * 1_000_000,
        b"STATUS INBOX " + b"(" * 1_000_000,
        b"SELECT INBOX " + b"(" * 1_000_000,
        b"ID " + b"(" * 1_000_000,
        b"SORT " + b"(" * 1_000_000,
        b"APPEND INBOX " + b"(" * 1_000_000 + b" {1}",
    ],
    ids=lambda command: command[:14].decode().replace(" ", "_"),
)
def test_deep_and_long_commands(command):
    """Nesting must not overflow a stack, and a list must not outgrow its bound."""
    made = reader()
    events = send(made, b"a " + command + b"\r\nb NOOP\r\n")
    assert [type(event) for event in events] == [Rejected, Command]
    assert events[0].status == "BAD"
    assert events[1].tag == "b"


@pytest.mark.case(11)
def test_a_million_parentheses_before_login():
    """Before login a line has little room; the whole megabyte is never held."""
    made = reader(State.NOT_AUTHENTICATED)
    tracemalloc.start()
    events = []
    for _ in range(1000):
        events += send(made, b"a LOGIN " + b"(" * 1000 if made.buffered == 0 and not made.in_command else b"(" * 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(event) for event in events] == [Fatal]
    assert events[0].tag == "a"
    assert peak < 200_000


@pytest.mark.case(5)
@pytest.mark.parametrize("step", [100, 1 << 16, 1 << 30])
def test_overlong_line_is_refused_and_dropped(step):
    """The end of an overlong line must not be taken for a command."""
    data = b"a1 SEARCH TEXT " + b"x" * (2 * limits.LINE_BYTES_MAX) + b" b1 LOGOUT\r\nb2 NOOP\r\n"
    made = reader()
    events = []
    for start in range(0, len(data), step):
        events += send(made, data[start : start + step])
    assert events == [Rejected("a1", "BAD", "TOOBIG", "Command line is too long", "SEARCH"), Command("b2", "NOOP", Noop())]


def test_overlong_line_with_a_literal_at_its_end():
    """The literal behind a refused line belongs to it too."""
    made = reader()
    data = b"a1 SEARCH TEXT " + b"x" * limits.LINE_BYTES_MAX + b" {9+}\r\nb LOGOUT\r {2+}\r\nhi\r\nb2 NOOP\r\n"
    assert [event.tag for event in send(made, data)] == ["a1", "b2"]
    for byte in data:
        made.feed(bytes([byte]))
    assert [event.tag for event in drain(made)] == ["a1", "b2"]


def test_text_of_all_lines_of_a_command_counts():
    """Lines between literals would get around the limit of one line."""
    made = reader(State.NOT_AUTHENTICATED)
    part = limits.LINE_BYTES_MAX_BEFORE_LOGIN // 2
    assert send(made, b"a LOGIN " + b"x" * part + b" {1}\r\n") == [ContinuationNeeded(1)]
    assert send(made, b"y" + b"x" * part + b" {1}\r\n")[0].code == "TOOBIG"


def test_tag_is_bounded():
    """A tag is echoed in every answer."""
    made = reader()
    longest = b"t" * limits.TAG_BYTES_MAX
    assert send(made, longest + b" NOOP\r\n") == [Command(longest.decode(), "NOOP", Noop())]
    assert send(made, longest + b"t NOOP\r\n")[0].tag == "*"


def test_endless_rest_of_a_refused_command_ends_the_connection():
    """A refused client could go on sending for ever."""
    made = reader(State.NOT_AUTHENTICATED)
    assert send(made, b"a NOSUCH {10+}\r\n0123456789") == []
    events = []
    for _ in range(limits.DISCARD_BYTES_MAX_BEFORE_LOGIN // 1000 + 2):
        events += send(made, b"x" * 1000)
    assert [type(event) for event in events] == [Fatal]
    assert send(made, b"\r\nb NOOP\r\n") == []
    assert made.buffered == 0


# Messages


def test_the_session_may_take_its_time():
    """Whether the folder exists is asked of the store: meanwhile nothing behind the command may run."""
    made = reader()
    assert send(made, b"a APPEND INBOX {3+}\r\nabc\r\nb NOOP\r\n") == [AppendLiteral("a", "INBOX", 3, 0, 0, False)]
    assert drain(made) == []
    made.accept_literal()
    events = drain(made)
    assert [event.tag for event in events] == ["a", "b"]
    assert events[0].body.messages[0].data == [b"abc"]


def test_chunks_of_a_message_are_not_copied():
    """A 50 MB message held twice would halve how many can come in at once."""
    made = reader()
    chunks = [bytes([65 + number]) * limits.APPEND_CHUNK_BYTES_MIN for number in range(4)]
    size = sum(map(len, chunks))
    send(made, b"a APPEND INBOX {%d}\r\n" % size)
    made.accept_literal()
    assert drain(made) == [ContinuationNeeded(size)]
    for chunk in chunks:
        assert send(made, chunk) == []
    (event,) = send(made, b"\r\n")
    assert all(kept is chunk for kept, chunk in zip(event.body.messages[0].data, chunks, strict=True))
    assert event.body.messages[0].size == size


def test_a_message_in_single_bytes_is_gathered():
    """A slow client's message as a list of single bytes would take fifty times its size."""
    made = reader()
    size = 100_000
    send(made, b"a APPEND INBOX {%d}\r\n" % size)
    made.accept_literal()
    drain(made)
    for number in range(size):
        assert send(made, bytes([number % 251])) == []
    (event,) = send(made, b"\r\n")
    pieces = event.body.messages[0].data
    assert b"".join(pieces) == bytes(number % 251 for number in range(size))
    assert len(pieces) <= size // limits.APPEND_CHUNK_BYTES_MIN + 1


def test_message_and_commands_in_one_chunk():
    """A pipelining client sends all at once; each byte belongs to one thing only."""
    made = reader()
    made.feed(b"x NOOP\r\na APPEND INBOX {5+}\r\nhe" + b"llo {3+}\r\nyou\r\ny NOOP\r\n")
    assert [event.tag for event in (take(made), take(made))] == ["x", "a"]
    made.accept_literal()
    second = take(made)
    assert second == AppendLiteral("a", "INBOX", 3, 1, 5, False)
    made.accept_literal()
    command = take(made)
    assert isinstance(command.body, Append)
    assert [message.data for message in command.body.messages] == [[b"hello"], [b"you"]]
    assert take(made).tag == "y"


def test_refused_message_is_not_kept():
    """A refused 10 MB message must not take 10 MB on its way to nowhere."""
    made = reader()
    size = 10_000_000
    send(made, b"a APPEND INBOX {%d+}\r\n" % size)
    made.refuse_literal("NO", "No such folder", "TRYCREATE")
    tracemalloc.start()
    chunk = bytes(50_000)
    for _ in range(size // len(chunk)):
        assert send(made, chunk) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000
    assert send(made, b"\r\nb NOOP\r\n") == [Rejected("a", "NO", "TRYCREATE", "No such folder", "APPEND"), Command("b", "NOOP", Noop())]


def test_refused_message_that_is_too_big_to_skip():
    """Reading gigabytes only to drop them costs more than the connection is worth; the client hears why."""
    made = reader()
    send(made, b"a APPEND INBOX {%d+}\r\n" % (limits.DISCARD_BYTES_MAX + 1))
    made.refuse_literal("NO", "Too big", "TOOBIG")
    assert drain(made) == [Fatal("a", "TOOBIG", "Too big", "NO")]


@pytest.mark.case(13)
def test_too_many_messages_in_one_append():
    """One command is one commit: it has to have an end."""
    made = reader()
    events = send(made, b"a APPEND INBOX")
    for number in range(limits.APPEND_MESSAGES_MAX):
        events = send(made, b" {1+}\r\nx")
        assert events == [AppendLiteral("a", "INBOX", 1, number, number, False)]
        made.accept_literal()
        assert drain(made) == []
    assert send(made, b" {1}\r\n") == [Rejected("a", "NO", "LIMIT", "Too many messages in one APPEND", "APPEND")]
    assert send(made, b"b NOOP\r\n") == [Command("b", "NOOP", Noop())]


def test_two_spaces_between_messages():
    """IMAPClient's multiappend() sends them: its users could append one message only."""
    made = reader()
    send(made, b"a APPEND INBOX {1+}\r\nx  {1+}\r\ny\r\n")
    made.accept_literal()
    assert drain(made) == [AppendLiteral("a", "INBOX", 1, 1, 1, False)]
    made.accept_literal()
    [done] = drain(made)
    assert [b"".join(message.data) for message in done.body.messages] == [b"x", b"y"]


@pytest.mark.case(13)
def test_aborted_append_is_no_command():
    """A connection lost within the last message must not append the others."""
    made = reader()
    send(made, b"a APPEND INBOX {1+}\r\nx {5+}\r\n")
    made.accept_literal()
    drain(made)
    made.accept_literal()
    assert send(made, b"hell") == []
    assert made.in_command


# Pulling one at a time


def test_a_command_is_parsed_under_what_the_one_before_it_changed():
    """ENABLE UTF8=ACCEPT and the SELECT behind it may arrive in one packet."""
    made = reader(State.AUTHENTICATED)
    made.feed(b'a ENABLE UTF8=ACCEPT\r\nb SELECT "\xc3\xa9"\r\nc CHECK\r\n')
    take(made)
    made.utf8 = True
    assert take(made).body.mailbox == "é"
    made.state = State.SELECTED
    assert take(made).name == "CHECK"


@pytest.mark.case(3)
def test_what_is_pipelined_behind_starttls_is_dropped():
    """Plaintext that an attacker puts behind STARTTLS must not run inside the TLS session."""
    made = reader(State.NOT_AUTHENTICATED)
    made.feed(b"a STARTTLS\r\nb LOGIN mallory x\r\nc LOG")
    assert take(made).name == "STARTTLS"
    assert made.discard_buffered() == len(b"b LOGIN mallory x\r\nc LOG")
    assert drain(made) == []
    assert send(made, b"d NOOP\r\n") == [Command("d", "NOOP", Noop())]
    assert send(made, b"e LOG") == []  # a beginning that was looked at already
    assert made.discard_buffered() == len(b"e LOG")
    assert send(made, b"f NOOP\r\n") == [Command("f", "NOOP", Noop())]


def test_compressed_bytes_behind_compress_are_handed_over():
    """They would be read as commands, and all that follows be garbage."""
    made = reader(State.AUTHENTICATED)
    made.feed(b"a COMPRESS DEFLATE\r\n\x01\x02\n")
    made.feed(b"\x03")
    assert take(made).name == "COMPRESS"
    assert made.buffered == 4
    assert made.take_buffered() == b"\x01\x02\n\x03"
    assert made.buffered == 0


def test_idle_and_its_end_in_one_packet():
    """Some clients send DONE right behind IDLE."""
    made = reader()
    made.feed(b"a IDLE\r\ndone\r\nb NOOP\r\n")
    assert take(made) == Command("a", "IDLE", Idle())
    made.expect_line(limits.IDLE_LINE_BYTES_MAX)
    assert made.in_command
    assert drain(made) == [Line(b"done"), Command("b", "NOOP", Noop())]
    assert not made.in_command


@pytest.mark.case(16)
@pytest.mark.parametrize("end", [b"", b"\r\n"])
def test_overlong_line_in_a_sasl_exchange(end):
    """A client that never ends its response must not fill memory."""
    made = reader(State.NOT_AUTHENTICATED)
    made.expect_line(100)
    assert [type(event) for event in send(made, b"x" * 102 + end)] == [Fatal]


@pytest.mark.parametrize("step", [1, 1000])
def test_limits_do_not_depend_on_where_a_line_is_cut(step):
    """A line of just the allowed length is as good in two packets as in one."""
    for line in (b"x" * 100 + b"\r\n", b"x" * 101 + b"\r\n"):
        made = reader(State.NOT_AUTHENTICATED)
        made.expect_line(100)
        events = [event for start in range(0, len(line), step) for event in send(made, line[start : start + step])]
        assert [type(event) for event in events] == [Line if len(line) == 102 else Fatal]
    most = limits.LINE_BYTES_MAX_BEFORE_LOGIN
    for size in (most, most + 1):
        line = b"a LOGIN alice ".ljust(size, b"x") + b"\r\n"
        made = reader(State.NOT_AUTHENTICATED)
        events = [event for start in range(0, len(line), step) for event in send(made, line[start : start + step])]
        assert [type(event) for event in events] == [Command if size == most else Rejected]


def test_literal_may_be_cut_anywhere():
    """TCP cuts where it likes."""
    data = b'a LOGIN {5+}\r\na\r\nb" {6+}\r\n{1+}\r\n\r\n'
    for cut in range(1, len(data)):
        made = reader(State.NOT_AUTHENTICATED)
        events = send(made, data[:cut]) + send(made, data[cut:])
        assert events == [Command("a", "LOGIN", Login('a\r\nb"', "{1+}\r\n"))]


def test_an_extension_is_an_entry_in_the_table():
    """Whoever adds a command must not have to patch the reader."""
    from mailpod.protocol.imap.grammar.registry import VERBS
    from mailpod.protocol.imap.grammar.verb import Verb
    from mailpod.protocol.imap.states import ANY

    made = Reader({**VERBS, "XPING": Verb("XPING", ANY, lambda cursor: Noop())})
    made.feed(b"a XPING\r\n")
    assert take(made) == Command("a", "XPING", Noop())

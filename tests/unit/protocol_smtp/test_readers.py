"""Where a message ends, and where a line does: the place where smuggling would happen."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.protocol.smtp import ChunkReader, DataReader, InputReader, unstuff

# What other servers have taken for the end of data (CVE-2023-51764, -51765, -51766, and relatives). None of them is.
NOT_THE_END = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\n. \r\n",
    b"\r\n.\t\r\n",
    b"\r\n .\r\n",
    b"\r\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\r\n.\r\r\n",
    b"\x85.\x85",
    b"\r\n..\r\n",
]


def read_data(stream: bytes, cuts, limit: int = 1 << 20) -> tuple[DataReader, int]:
    reader, at = DataReader(limit), 0
    for cut in [*cuts, len(stream)]:
        if cut <= at:
            continue
        taken = reader.feed(stream[at:cut])
        if reader.done:
            return reader, at + taken
        assert taken == cut - at
        at = cut
    return reader, at


@pytest.mark.case(1)
@pytest.mark.parametrize("sequence", NOT_THE_END)
@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_nothing_but_crlf_dot_crlf_ends_data(sequence, step):
    """A smuggled second message would be taken for commands if any other sequence ended the first."""
    stream = b"Subject: x\r\n\r\nbody" + sequence + b"MAIL FROM:<evil@example.org>\r\n.\r\nQUIT\r\n"
    reader, consumed = read_data(stream, range(step, len(stream), step))
    assert reader.done
    assert stream[consumed:] == b"QUIT\r\n"
    assert b"MAIL FROM:<evil@example.org>" in reader.take()


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 100])
@pytest.mark.parametrize(
    ("stream", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n..b\r\n...c\r\n.\r\n", b"a\r\n.b\r\n..c\r\n"),
        (b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"a\r\n..\r\n..\r\n.\r\n", b"a\r\n.\r\n.\r\n"),
    ],
)
def test_content_is_unstuffed_exactly(stream, content, step):
    """RFC 5321 §4.5.2: a dot too many or too few would change the sender's text, and break signatures."""
    reader, consumed = read_data(stream + b"NOOP\r\n", range(step, len(stream) + 6, step))
    assert reader.done
    assert consumed == len(stream)
    assert reader.take() == content


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"a", b"\x00", b"\r\n.\r\n"]), max_size=30), st.integers(0, 2**32))
def test_data_reader_agrees_with_a_plain_search(pieces, seed):
    """However the network cuts the stream, the end is where a search over all of it finds it; anything else could be steered."""
    stream = b"".join(pieces)
    rng = random.Random(seed)
    reader, consumed = read_data(stream, sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(12))))
    end = (b"\r\n" + stream).find(b"\r\n.\r\n")
    assert reader.done is (end >= 0)
    if end >= 0:
        assert consumed == end + 3
        assert reader.take() == unstuff(stream[:end])
        assert reader.seen == end


@pytest.mark.case(5)
def test_oversize_content_is_read_to_its_end_and_not_kept():
    """A client that ignores SIZE must not fill the pod's memory, nor have its text read as commands."""
    reader = DataReader(1000)
    for _ in range(100):
        assert reader.feed(b"x" * 98 + b"\r\n") == 100
    assert reader.oversize
    assert reader._chunks == []
    assert not reader.overrun
    assert reader.feed(b".\r\nQUIT\r\n") == 3
    assert reader.done
    reader = DataReader(1000)
    reader.feed(b"x" * (limits.OVERSIZE_SKIP_BYTES_MAX + 1001))
    assert reader.overrun


def lines_of(stream: bytes, step: int, limit: int = 100) -> Any:
    reader, out = InputReader(), []
    for at in range(0, len(stream), step):
        reader.feed(stream[at : at + step])
        while (line := reader.line(limit)) is not None:
            out.append(line.name if isinstance(line, Reason) else line)
    return out, reader


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
def test_lines_come_out_whole_however_they_are_cut(step):
    """Byte by byte or all at once, the same commands."""
    out, reader = lines_of(b"EHLO a\r\n\r\nMAIL FROM:<>\r\nRCPT", step)
    assert out == [b"EHLO a", b"", b"MAIL FROM:<>"]
    assert reader.pending == 4


@pytest.mark.case(1)
@pytest.mark.parametrize("step", [1, 4, 1000])
def test_lines_end_with_crlf_only(step):
    """Bare LF, bare CR and NUL are refused line by line; the line after is read as usual."""
    out, _ = lines_of(b"NOOP\nNOOP\r\nNO\rOP\r\nNO\x00OP\r\n\nQUIT\r\n", step)
    assert out == ["bare-newline", b"NOOP", "control-character", "control-character", "bare-newline", b"QUIT"]


@pytest.mark.case(5)
@pytest.mark.parametrize("step", [1, 64, 4096, 1 << 21])
def test_long_lines_are_skipped_within_bounds(step):
    """A line of 60 KB costs no memory and one 500; a line of 1 MB says that the client is no mail program."""
    out, reader = lines_of(b"x" * 60_000 + b"\r\nNOOP\r\n", step)
    assert out == ["line-too-long", b"NOOP"]
    assert not reader.overrun
    reader = InputReader()
    for _ in range(16):
        reader.feed(b"x" * (1 << 16))
        assert reader.line(2048) is None
        assert reader.pending == 0
    assert reader.overrun


def test_limit_is_inclusive_of_crlf():
    """A line of exactly the limit is taken, one byte more is not."""
    assert lines_of(b"x" * 98 + b"\r\n", 1000)[0] == [b"x" * 98]
    assert lines_of(b"x" * 99 + b"\r\n", 1000)[0] == ["line-too-long"]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_lines_do_not_depend_on_cuts(stream, cuts):
    """Fuzz: whatever comes, the same lines and refusals for every way of cutting it, and never an exception."""

    def run(points) -> Any:
        reader, out, at = InputReader(), [], 0
        for cut in [*sorted(points), len(stream)]:
            reader.feed(stream[at:cut])
            at = max(at, cut)
            while (line := reader.line(64)) is not None:
                out.append(line)
        return out

    assert run(cuts) == run([])


@pytest.mark.parametrize("keep", [True, False])
def test_chunk_takes_its_bytes_and_no_more(keep):
    """RFC 3030: a chunk is counted, not searched; whatever it holds, what follows is the next command."""
    reader = InputReader()
    reader.feed(b"BDAT 7\r\na\r\n.\r\nQUIT\r\n")
    assert reader.line(100) == b"BDAT 7"
    chunk = ChunkReader(7, keep=keep)
    assert reader.content(chunk) == 6 + 1
    assert chunk.done
    assert b"".join(chunk.take()) == (b"a\r\n.\r\nQ"[:7] if keep else b"")


def test_chunk_in_pieces_between_commands():
    """Pipelined chunks: each gets its own bytes wherever the reads are cut."""
    stream = b"BDAT 5\r\nab\r\ncBDAT 0 LAST\r\nNOOP\r\n"
    for step in (1, 2, 3, 100):
        reader, kept, lines = InputReader(), b"", []
        chunk = None
        for at in range(0, len(stream), step):
            reader.feed(stream[at : at + step])
            while True:
                if chunk is not None:
                    reader.content(chunk)
                    if not chunk.done:
                        break
                    kept += b"".join(chunk.take())
                    chunk = None
                line = reader.line(100)
                if line is None:
                    break
                lines.append(line)
                if line == b"BDAT 5":
                    chunk = ChunkReader(5, keep=True)
        assert kept == b"ab\r\nc"
        assert lines == [b"BDAT 5", b"BDAT 0 LAST", b"NOOP"]


def test_discard_forgets_plaintext():
    """RFC 3207 §4.2: what came behind STARTTLS, half a line included, is gone."""
    reader = InputReader()
    reader.feed(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\nRC")
    assert reader.line(100) == b"STARTTLS"
    assert reader.discard() == 32
    reader.feed(b"EHLO b\r\n")
    assert reader.line(100) == b"EHLO b"

"""Ugly mail in files, each with the ENVELOPE, BODY and BODYSTRUCTURE that clients get. Checked against Dovecot 2.3 when written;
where ours differ, the reason is in `DIFFERENT`."""

from pathlib import Path

import pytest
from imapclient.response_parser import parse_fetch_response

from mailpod.message import summarize
from mailpod.message.scan import scan
from mailpod.message.sections import find_part, section_range

CORPUS = Path(__file__).parent / "corpus"
MESSAGES = sorted(CORPUS.glob("*.eml"))

# What Dovecot renders otherwise, on purpose of ours.
DIFFERENT = {
    "addresses": "a string with more than four escapes is a literal there, a quoted string here: the same value",
    "attachment-2231": "an unquoted file name with brackets and spaces is cut there at the first of them",
    "boundary-prefix": "a line that only begins with a boundary delimits there; here only the whole line does (RFC 2046 §5.1.1)",
    "boundary-same": "an inner multipart that uses its parent's boundary takes the parent's delimiters there",
    "folded": "runs of spaces are one there",
    "type-broken": "a Content-Type without subtype shows an empty subtype there; here it is text/plain (RFC 2045 §5.2)",
}


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_rendered_as_expected(path):
    """A changed byte here is a changed message list or attachment list in somebody's mail program."""
    summary = summarize(path.read_bytes())
    shown = b"ENVELOPE %s\nBODY %s\nBODYSTRUCTURE %s\n" % (summary.envelope, summary.body, summary.bodystructure)
    assert shown == path.with_suffix(".expected").read_bytes()


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_a_client_library_reads_it(path):
    """imapclient parses what we send: a bracket or a literal length that is wrong would end the session."""
    summary = summarize(path.read_bytes())
    for item, value in ((b"ENVELOPE", summary.envelope), (b"BODY", summary.body), (b"BODYSTRUCTURE", summary.bodystructure)):
        parsed = parse_fetch_response(_tokens(b"1 (" + item + b" " + value + b")"), uid_is_key=False)
        assert item in parsed[1]


def _tokens(line: bytes) -> list[bytes | tuple[bytes, bytes]]:
    """As imapclient gets lines from imaplib: literals apart, each with the text before it."""
    out: list[bytes | tuple[bytes, bytes]] = []
    while True:
        brace = line.find(b"}\r\n")
        if brace < 0:
            out.append(line)
            return out
        start = line.rfind(b"{", 0, brace)
        size = int(line[start + 1 : brace])
        out.append((line[: brace + 1], line[brace + 3 : brace + 3 + size]))
        line = line[brace + 3 + size :]


@pytest.mark.parametrize("path", MESSAGES, ids=lambda path: path.stem)
def test_offsets_reassemble(path):
    """BODY[…] is cut from the stored bytes by these offsets: header, body and the rest must be the message, byte for byte."""
    raw = path.read_bytes()
    parts = summarize(raw).parts
    root = parts[0]
    assert raw[: root.body_start] + raw[root.body_start : root.body_end] == raw
    assert section_range(parts, "", "HEADER") == (0, root.body_start)
    assert section_range(parts, "", "TEXT") == (root.body_start, len(raw))
    for part in parts:
        assert 0 <= part.header_start <= part.body_start <= part.body_end <= len(raw)
    for node in scan(raw).nodes:
        before = node.body_start
        for child in node.children:
            assert child.header_start >= before
            assert child.body_end <= node.body_end
            before = child.body_end


@pytest.mark.parametrize(
    ("name", "path", "text", "expected"),
    [
        ("plain", "1", "", b"Hello Bob,\r\n\r\nsee you on Friday.\r\n"),
        ("plain", "1", "MIME", None),
        (
            "alternative",
            "1",
            "MIME",
            b"Content-Type: text/plain; charset=utf-8; format=flowed\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
        ),
        ("alternative", "2", "", b"PHA+R3LDvMOfZTwvcD4=\r\n"),
        (
            "rfc822-plain",
            "2",
            "",
            b"From: carol@example.net\r\nSubject: inner\r\nMessage-ID: <inner@example.net>\r\n\r\ninner body\r\nsecond line",
        ),
        ("rfc822-plain", "2", "HEADER", b"From: carol@example.net\r\nSubject: inner\r\nMessage-ID: <inner@example.net>\r\n\r\n"),
        ("rfc822-plain", "2", "TEXT", b"inner body\r\nsecond line"),
        ("rfc822-plain", "2.1", "", b"inner body\r\nsecond line"),
        ("rfc822-multipart", "1.1", "", b"one"),
        ("rfc822-multipart", "1.2", "", b"<b>two</b>"),
        ("rfc822-multipart", "1.2", "MIME", b"Content-Type: text/html\r\n\r\n"),
        ("rfc822-root", "1.1", "HEADER", b"From: erin@example.org\r\nSubject: innermost\r\n\r\n"),
        ("rfc822-root", "1.1.1", "", b"hello\r\n"),
        ("digest", "1.1", "", b"body one"),
        ("digest", "2", "", b"not a message"),
        ("boundary-inner-open", "2", "", b"outer two"),
        ("boundary-inner-open", "1.1", "", b"only one, and the inner one never ends"),
    ],
)
def test_sections(name, path, text, expected):
    """RFC 9051 §6.4.5's numbering: a client that asks for an attachment gets that one."""
    raw = (CORPUS / f"{name}.eml").read_bytes()
    found = section_range(summarize(raw).parts, path, text)
    assert found is not None
    if expected is None:
        expected = raw[: summarize(raw).header_size]
    assert raw[slice(*found)] == expected


@pytest.mark.parametrize(("path", "text"), [("2", ""), ("1.1", ""), ("1", "HEADER"), ("1", "TEXT"), ("", "MIME"), ("0", ""), ("1.", "")])
def test_sections_that_are_not_there(path, text):
    """A section that the message has not is NIL, never another part's bytes."""
    raw = (CORPUS / "plain.eml").read_bytes()
    assert section_range(summarize(raw).parts, path, text) is None


def test_inner_multipart_root_has_no_number():
    """RFC 9051 §6.4.5: the multipart inside a message/rfc822 part is not a part that can be asked for."""
    raw = (CORPUS / "rfc822-multipart.eml").read_bytes()
    parts = summarize(raw).parts
    assert [part.path for part in parts] == ["", "1", "1.", "1.1", "1.2"]
    assert find_part(parts, "1.3") is None

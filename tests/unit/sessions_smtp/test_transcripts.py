"""Whole SMTP dialogues as files: `C:` a line from the client, `CC:` one more in the same write, `C<` bytes, `S:` a line from us.

`S*` skips the rest of a multi-line reply. `closed`, `stored ADDRESS FOLDER`, `transit ADDRESS FOLDER` say how it ends.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from mailpod.sessions.smtp import MX, SUBMISSION, SUBMISSIONS
from tests.support.smtp import Dialogue

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
RULES = {"mx": MX, "submission": SUBMISSION, "submissions": SUBMISSIONS}


def bytes_of(text) -> Any:
    if text.startswith("*"):
        return b"x" * int(text[1:])
    return re.sub(rb"\\([rn0])", lambda match: {b"r": b"\r", b"n": b"\n", b"0": b"\0"}[match[1]], text.encode())


def turns_of(text) -> Any:
    """(what to send, what to expect): consecutive client lines are one write when they are CC: or C<, else as many as there are."""
    sent: bytes = b""
    expected: list[str | None] = []
    turns: list[tuple[bytes, list[str | None]]] = []
    ends: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        tag, _, rest = line.partition(" ")
        if tag in ("C:", "CC:", "C<"):
            if expected:
                turns.append((sent, expected))
                sent, expected = b"", []
            sent += bytes_of(rest) if tag == "C<" else rest.encode() + b"\r\n"
        elif tag in ("S:", "S*"):
            expected.append(rest if tag == "S:" else None)
        elif line:
            ends.append(line)
    turns.append((sent, expected))
    return turns, ends


def matches(replies, expected) -> Any:
    if expected and expected[-1] is None:
        return replies[: len(expected) - 1] == expected[:-1]
    return replies == expected


@pytest.mark.case(21)
@pytest.mark.case(17)
@pytest.mark.case(4)
@pytest.mark.parametrize("step", [0, 1], ids=["whole", "bytewise"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_transcript(path, step):
    """A client that follows the RFCs would be misled by any line that differs, however its bytes arrive."""
    text = path.read_text()
    rules = RULES[text.partition("# rules: ")[2].split()[0]]
    dialogue = Dialogue(rules=rules, tls=rules.implicit_tls)
    turns, ends = turns_of(text)
    replies = dialogue.read()
    for sent, expected in turns:
        if sent:
            replies = await dialogue.send(sent, step if len(sent) < 10_000 else 0)
        assert replies.endswith("\r\n")
        assert matches(replies.split("\r\n")[:-1], expected), (sent[:200], replies)
    assert dialogue.wire.closed is ("closed" in ends)
    stored = [f"stored {account.address} {folder}" for account in dialogue.store.accounts.values() for folder, _ in account.messages]
    transit = [f"transit {one.account} {one.folder}" for message in dialogue.store.transit for one in message.recipients]
    assert sorted(stored) + transit == [line for line in ends if line != "closed"]
    assert dialogue.shared.bodies.used_bytes == 0

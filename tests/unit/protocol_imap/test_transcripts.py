"""Every command, well-formed and not, as clients write them: the transcripts beside this file."""

from pathlib import Path

import pytest

from mailpod.protocol.imap.grammar.registry import VERBS

TRANSCRIPTS = sorted(Path(__file__).with_name("transcripts").glob("*.txt"))


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(harness, path, step):
    """A client whose command is read otherwise than it was meant, or whose packets are cut elsewhere, gets the wrong mail."""
    player = harness.Player()
    for block in harness.load(path):
        for directive in block.directives:
            player.direct(directive)
        events = [harness.show_event(event) for event in player.play(block.sent, step)]
        assert events == block.events, f"{path.name}:{block.line}"
    assert not player.reader.in_command


def test_every_command_has_a_transcript(harness):
    """A command that nobody ever tried to read or to refuse would be found broken by its first user."""
    accepted: set[str] = set()
    rejected: set[str] = set()
    for path in TRANSCRIPTS:
        for block in harness.load(path):
            for event in block.events:
                if event.startswith("Command "):
                    words = event.split(" ")
                    accepted.add(" ".join(words[2:4]) if words[2] == "UID" else words[2])
                elif event.startswith("Rejected "):
                    rejected.add(
                        event.rsplit(" ", 1)[1].strip("'") if "'UID " not in event else "UID " + event.rsplit(" ", 1)[1].strip("'")
                    )
    assert accepted == set(VERBS)
    assert set(VERBS) <= rejected

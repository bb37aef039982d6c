"""Conversations with the IMAP session over the real store, each as a file, whole and byte by byte."""

from pathlib import Path

import pytest

from tests.support.imap import play

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("pieces", [0, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
async def test_transcript(path, pieces):
    """A client that speaks IMAP as these do would be told something else, or the answer would depend on how its bytes were cut."""
    await play(path, pieces=pieces)


def test_there_are_transcripts():
    """A moved folder would silently leave nothing to play."""
    assert len(TRANSCRIPTS) >= 20

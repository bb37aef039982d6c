"""What mail programs said when they were recorded (`python -m tests.support.recorder`), said again to a running pod."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailpod.adapters.objects import Credentials
from mailpod.contract import ListenerName, StorageConfig
from tests.support.client_programs import PROGRAMS, prepare, start_fleet
from tests.support.pods import PASSWORD, Fleet
from tests.support.seaweed import Seaweed
from tests.support.transcripts import Replay, load, same

RECORDED = Path(__file__).parents[1] / "transcripts" / "clients"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def pod(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A pod with an empty mailbox for each program."""
    storage = StorageConfig(bucket="mail", endpoint=seaweed.endpoint, force_path_style=True, prefix="transcripts")
    fleet = start_fleet(tmp_path_factory.mktemp("transcripts"), storage, Credentials(seaweed.access_key, seaweed.secret_key))
    yield fleet
    fleet.stop()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_recorded_program_gets_the_answers_that_it_got(pod: Fleet, name: str):
    """A change of ours that breaks a program in people's hands would be noticed by them, not by us."""
    prepare(pod, name)
    connections = load(RECORDED / f"{name}.txt")
    assert connections
    for number, recorded in enumerate(connections, 1):
        port = pod.pods[0].ports[ListenerName(recorded.listener)]
        got = Replay(recorded, port, pod.tls_context(), f"{name}@example.com").run()
        for line, (expected, answer) in enumerate(itertools.zip_longest(recorded.said_by("S"), got, fillvalue=""), 1):
            assert same(expected, answer), f"{name}, connection {number}, answer {line}\n  was {expected}\n  is  {answer}"


def test_the_files_hold_no_secret_and_every_protocol():
    """A password in the repository, or a protocol that no program speaks in these files."""
    texts = [path.read_text() for path in sorted(RECORDED.glob("*.txt"))]
    assert not any(PASSWORD in text for text in texts)
    listeners = {connection.listener for path in RECORDED.glob("*.txt") for connection in load(path)}
    assert listeners == set(ListenerName)

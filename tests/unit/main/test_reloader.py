"""Reload: a good change as a whole, a bad one not at all, said where people look."""

from __future__ import annotations

import msgspec
import pytest

from mailpod import contract
from mailpod.adapters.configdir import ConfigDirectory
from mailpod.errors import StoreUnavailable
from mailpod.main.configuration import ConfigError, Configuration, parse
from mailpod.main.pod import _fixed, locked_out
from mailpod.main.reload import Reloader
from mailpod.telemetry import CONFIG_RELOADS
from mailpod.web.health import Health


class Clock:
    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        return


class Pod:
    """Takes what it is given, unless told to fail."""

    def __init__(self, first: Configuration) -> None:
        self.configuration = first
        self.clock = Clock()
        self.health = Health(self.clock)
        self.fails: Exception | None = None
        self.applied = 0

    async def apply(self, new: Configuration) -> None:
        self.applied += 1
        if self.fails is not None:
            raise self.fails
        self.configuration = new


CONFIG = contract.PodConfig(
    version=1,
    generation="g1",
    hostname="mail.example.com",
    domains=(contract.DomainConfig(domain="example.com"),),
    storage=contract.StorageConfig(bucket="mail"),
    listeners=(),
)


def box(address: str, state: contract.MailboxState = contract.MailboxState.ACTIVE) -> contract.MailboxConfig:
    return contract.MailboxConfig(address=address, quota_bytes=0, protocols=(), state=state)


class Case:
    def __init__(self, folder) -> None:
        self.folder = folder
        self.write(CONFIG)
        directory = ConfigDirectory(folder)
        self.pod = Pod(parse(directory.read()))
        self.reloader = Reloader(directory, self.pod)

    def write(self, config: contract.PodConfig) -> None:
        (self.folder / "pod.json").write_bytes(msgspec.json.encode(config))

    def changed(self, **fields: object) -> None:
        self.write(msgspec.structs.replace(CONFIG, **fields))


@pytest.fixture
def case(tmp_path) -> Case:
    return Case(tmp_path)


def count(result: str) -> float:
    return float(CONFIG_RELOADS.labels(result)._value.get())


async def test_good_change_is_taken(case):
    """A new mailbox works without a restart."""
    before = count("ok")
    case.changed(generation="g2")
    assert await case.reloader.look()
    assert case.pod.configuration.pod.generation == "g2"
    assert count("ok") == before + 1


async def test_bad_change_is_refused_as_a_whole_and_reported(case):
    """A broken file must not take anybody's mail away, and somebody must hear of it."""
    before = count("refused")
    case.changed(generation="g2", log_level="Loud")
    assert await case.reloader.look()
    assert case.pod.configuration.pod.generation == "g1"
    assert "generation g1 stays in force" in case.pod.health.notes["config"]
    assert "log_level must be one of" in case.pod.health.notes["config"]
    assert count("refused") == before + 1
    await case.reloader.look()
    assert count("refused") == before + 1  # said once, not once a second
    case.changed(generation="g3")
    await case.reloader.look()
    assert case.pod.configuration.pod.generation == "g3"
    assert "config" not in case.pod.health.notes


async def test_taking_a_bad_change_back_clears_the_note(case):
    """After an undo nothing is wrong any more."""
    case.changed(log_level="Loud")
    await case.reloader.look()
    case.write(CONFIG)
    assert await case.reloader.look()
    assert "config" not in case.pod.health.notes
    assert case.pod.applied == 0


async def test_change_that_cannot_be_applied_yet_is_tried_again(case):
    """New bucket keys may work a minute later than they arrive."""
    case.changed(generation="g2")
    case.pod.fails = StoreUnavailable("access denied")
    assert not await case.reloader.look()
    assert "access denied" in case.pod.health.notes["config"]
    case.pod.fails = None
    assert await case.reloader.look()
    assert case.pod.configuration.pod.generation == "g2"


async def test_change_that_a_running_pod_cannot_make_is_not_tried_again(case):
    """Another bucket means other pods."""
    case.changed(generation="g2")
    case.pod.fails = ConfigError(["pod.json: storage.bucket cannot change"])
    assert await case.reloader.look()
    assert await case.reloader.look()
    assert case.pod.applied == 1


async def test_vanished_folder_keeps_the_last_good_one(case):
    """A mount that is gone for a moment is no empty configuration."""
    (case.folder / "pod.json").unlink()
    assert not await case.reloader.look()
    assert case.pod.configuration.pod.generation == "g1"


def test_what_a_running_pod_cannot_change():
    """Storage and the web port are the pod's foundation; each is named."""
    other = msgspec.structs.replace(CONFIG, web_port=1, storage=contract.StorageConfig(bucket="other", prefix="p"))
    assert [fault.split(" cannot")[0] for fault in _fixed(CONFIG, other)] == [
        "pod.json: storage.bucket",
        "pod.json: storage.prefix",
        "pod.json: web_port",
    ]
    assert not list(_fixed(CONFIG, CONFIG))


def test_whose_sessions_end():
    """Who is removed, locked or suspended is logged out; nobody else is."""
    old = [box("gone@x"), box("locked@x"), box("suspended@x"), box("stays@x")]
    new = [box("locked@x", contract.MailboxState.LOCKED), box("suspended@x", contract.MailboxState.SUSPENDED), box("stays@x"), box("new@x")]
    assert locked_out(old, new) == {"gone@x", "locked@x", "suspended@x"}

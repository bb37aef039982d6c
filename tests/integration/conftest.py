"""The real S3 server that all integration tests of a run share; each test gets a part of its bucket."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from mailpod.adapters.objects import Credentials
from mailpod.contract import StorageConfig
from tests.support.pods import Fleet
from tests.support.seaweed import Seaweed

BUCKET = "mail"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A running SeaweedFS."""
    server = Seaweed.start(tmp_path_factory.mktemp("seaweed"))
    server.make_bucket(BUCKET)
    yield server
    server.stop()


@pytest.fixture
def storage(seaweed: Seaweed) -> StorageConfig:
    """A fresh prefix in the bucket of all tests: each bucket of SeaweedFS takes volumes of its own from the disk."""
    return StorageConfig(bucket=BUCKET, endpoint=seaweed.endpoint, force_path_style=True, prefix=f"test-{next(_numbers)}")


@pytest.fixture
def credentials(seaweed: Seaweed) -> Credentials:
    """The server's keys."""
    return Credentials(seaweed.access_key, seaweed.secret_key)


@pytest.fixture(scope="module")
def fleet(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two running pods on one bucket, with alice@ and bob@example.com; one fleet a module."""
    config = StorageConfig(bucket=BUCKET, endpoint=seaweed.endpoint, force_path_style=True, prefix=f"fleet-{next(_numbers)}")
    running = Fleet.create(tmp_path_factory.mktemp("fleet"), config, Credentials(seaweed.access_key, seaweed.secret_key))
    try:
        running.start()
        yield running
    finally:
        running.stop()

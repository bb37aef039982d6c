"""`mailpod bucket` as an administrator runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import msgspec

from mailpod.adapters.objects import Credentials
from mailpod.contract import StorageConfig
from tests.support.careless_s3 import CarelessS3
from tests.support.pods import MAILPOD, Fleet
from tests.support.seaweed import Seaweed


def _bucket(fleet: Fleet, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [MAILPOD, "bucket", *arguments, "--config", str(fleet.pods[0].config_dir)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_init_creates_once_and_check_is_content(seaweed: Seaweed, credentials: Credentials, tmp_path: Path):
    """The first two commands that a newcomer types would not agree with each other."""
    storage = StorageConfig(bucket="made-by-init", endpoint=seaweed.endpoint, force_path_style=True, prefix="fleet")
    fleet = Fleet.create(tmp_path, storage, credentials, pods=1)
    before = _bucket(fleet, "check")
    assert (before.returncode, "cannot be used" in before.stderr) == (4, True), before
    assert "created" in _bucket(fleet, "init").stdout
    again = _bucket(fleet, "init")
    assert (again.returncode, "is there already" in again.stdout) == (0, True), again
    checked = _bucket(fleet, "check", "--json")
    assert checked.returncode == 0, checked
    assert {row["check"]: row["passed"] for row in json.loads(checked.stdout)} == dict.fromkeys(
        (
            "create-only-put",
            "racing-creates",
            "overwrite-against-create",
            "read-after-write",
            "list-consistency",
            "lifecycle",
            "versioning",
        ),
        True,
    )


def test_check_says_what_a_careless_store_does_wrong(seaweed: Seaweed, storage: StorageConfig, credentials: Credentials, tmp_path: Path):
    """An administrator would learn of it from lost mail."""
    careless = CarelessS3(seaweed.endpoint, 1).start()
    try:
        fleet = Fleet.create(tmp_path, msgspec.structs.replace(storage, endpoint=careless.endpoint), credentials, pods=1)
        checked = _bucket(fleet, "check")
    finally:
        careless.stop()
    assert checked.returncode == 1, checked
    assert "FAILED   create-only-put" in checked.stdout
    assert "SeaweedFS" in checked.stdout


def test_a_wrong_key_is_one_line(storage: StorageConfig, tmp_path: Path):
    """A page of traceback would hide that the key is wrong."""
    fleet = Fleet.create(tmp_path, storage, Credentials("nobody", "wrong-secret-key"), pods=1)
    checked = _bucket(fleet, "check")
    assert checked.returncode == 4
    assert "Traceback" not in checked.stderr
    assert "403" in checked.stderr
    assert "wrong-secret-key" not in checked.stderr

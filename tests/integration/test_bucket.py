"""The bucket adapter, the probe and the bucket administration against a real S3 server, and the probe against stores that do it wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from botocore.exceptions import ClientError

from mailpod.adapters.bucket_admin import admin_client, check_settings, create_bucket, set_lifecycle
from mailpod.adapters.conformance import probe
from mailpod.adapters.objects import Bucket, Credentials, open_bucket
from mailpod.adapters.system import SystemClock, SystemEntropy
from mailpod.contract import StorageConfig
from mailpod.errors import CONDITIONAL_WRITES_REFUSED, ObjectNotFound, StoreUnavailable
from mailpod.ports import Listed, PutOutcome, Stored


@pytest.fixture
def bucket(storage: StorageConfig, credentials: Credentials) -> Bucket:
    return open_bucket(storage, SystemClock(), credentials=credentials)


async def test_a_created_object_reads_back_whole_and_in_ranges(bucket: Bucket):
    """A body served by byte range would be cut or shifted."""
    key = "p/v1/accounts/example.com/a%2Fb+c é/log/0000000000000001"
    assert await bucket.create(key, [b"0123", b"456789"]) is PutOutcome.CREATED
    assert await bucket.create(key, b"other") is PutOutcome.EXISTS
    whole = await bucket.get(key)
    assert (whole.data, whole.size) == (b"0123456789", 10)
    assert abs(whole.last_modified - SystemClock().now()) < 5
    assert (await bucket.get(key, 4)).data == b"456789"
    assert (await bucket.get(key, 8, 100)).data == b"89"
    assert (await bucket.get(key, 100, 5)).data == b""
    assert [row.key for row in await bucket.list("p/v1/accounts/example.com/")] == [key]


async def test_list_goes_on_after_a_key_and_stops_at_a_limit(bucket: Bucket):
    """An account with more entries than one page of LIST would be read only in part."""
    await asyncio.gather(*(bucket.put(f"log/{number:04x}", b"x") for number in range(1030)))
    keys = [row.key for row in await bucket.list("log/")]
    assert keys == [f"log/{number:04x}" for number in range(1030)]
    assert [row.key for row in await bucket.list("log/", start_after="log/0005", limit=3)] == keys[6:9]
    await bucket.delete([*keys, "log/never"])
    assert await bucket.list("log/") == []


async def test_a_large_overwrite_and_an_absent_object(bucket: Bucket):
    """A body over the multipart threshold would not come back as it was."""
    body = bytes(range(256)) * 4096 * 40  # 40 MiB
    await bucket.put("big", body)
    assert (await bucket.get("big")).data == body
    with pytest.raises(ObjectNotFound):
        await bucket.get("absent")


async def test_a_missing_bucket_is_no_absent_object(storage: StorageConfig, credentials: Credentials):
    """A deleted bucket would look like empty accounts, and new ones would be begun."""
    other = StorageConfig(bucket="nowhere", endpoint=storage.endpoint, force_path_style=True)
    bucket = open_bucket(other, SystemClock(), credentials=credentials)
    with pytest.raises(StoreUnavailable):
        await bucket.get("log/1")


async def test_wrong_keys_and_a_dead_endpoint_are_unavailable(storage: StorageConfig):
    """A rotated key would be taken for an answer about the mail."""
    denied = open_bucket(storage, SystemClock(), credentials=Credentials("nobody", "wrong"), retries=0)
    with pytest.raises(StoreUnavailable, match="denied"):
        await denied.create("log/1", b"x")
    dead = StorageConfig(bucket="mail", endpoint="http://127.0.0.1:9", force_path_style=True)
    bucket = open_bucket(dead, SystemClock(), credentials=Credentials("nobody", "wrong"), retries=0)
    with pytest.raises(StoreUnavailable):
        await bucket.create("log/1", b"x")


async def test_the_probe_passes_on_a_store_that_does_it_right(bucket: Bucket):
    """A good bucket would keep the pod from ever becoming ready."""
    findings = await probe(bucket, SystemEntropy(), "fleet")
    assert [finding.check for finding in findings if not finding.passed] == []
    assert len(findings) == 5
    assert await bucket.list("fleet/v1/probe/") == []


class _Wrong:
    """A bucket between the probe and the real one that breaks one promise."""

    def __init__(self, real: Bucket) -> None:
        self.real = real

    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        return await self.real.create(key, data)

    async def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        await self.real.put(key, data)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> Stored:
        return await self.real.get(key, start, length)

    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[Listed]:
        return await self.real.list(prefix, start_after=start_after, limit=limit)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.real.delete(keys)


class _Ignores(_Wrong):
    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        await self.real.put(key, data)
        return PutOutcome.CREATED


class _LooksThenWrites(_Wrong):
    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        try:
            await self.real.get(key)
        except ObjectNotFound:
            await asyncio.sleep(0.02)
            await self.real.put(key, data)
            return PutOutcome.CREATED
        return PutOutcome.EXISTS


class _DeletesThenWrites(_Wrong):
    async def put(self, key: str, data: bytes | Sequence[bytes]) -> None:
        await self.real.delete([key])
        await asyncio.sleep(0.02)
        await self.real.put(key, data)


class _RemembersAbsence(_Wrong):
    def __init__(self, real: Bucket) -> None:
        super().__init__(real)
        self.absent: set[str] = set()

    async def get(self, key: str, start: int = 0, length: int | None = None) -> Stored:
        if key in self.absent:
            raise ObjectNotFound(key)
        try:
            return await self.real.get(key, start, length)
        except ObjectNotFound:
            self.absent.add(key)
            raise


class _ListsLate(_Wrong):
    async def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[Listed]:
        return (await self.real.list(prefix, start_after=start_after, limit=limit))[:-1]


class _Refuses(_Wrong):
    async def create(self, key: str, data: bytes | Sequence[bytes]) -> PutOutcome:
        if key.endswith("/sequential"):
            raise StoreUnavailable("501 Not Implemented", CONDITIONAL_WRITES_REFUSED)
        return await self.real.create(key, data)


@pytest.mark.parametrize(
    ("wrong", "check", "words"),
    [
        (_Ignores, "create-only-put", "ignores the condition"),
        (_LooksThenWrites, "racing-creates", "instead of exactly one"),
        (_DeletesThenWrites, "overwrite-against-create", "overwritten"),
        (_RemembersAbsence, "read-after-write", "right after a PUT was answered 404"),
        (_ListsLate, "list-consistency", "does not show the object"),
        (_Refuses, "create-only-put", "was not accepted"),
    ],
)
async def test_the_probe_tells_what_a_store_does_wrong(bucket: Bucket, wrong: type[_Wrong], check: str, words: str):
    """A store without working conditional writes would be used, and mail would be lost in the first race."""
    findings = {finding.check: finding for finding in await probe(wrong(bucket), SystemEntropy(), "")}
    assert not findings[check].passed
    assert words in findings[check].detail
    assert "SeaweedFS" in findings[check].detail


def test_creating_a_bucket_twice_and_its_lifecycle_rule(storage: StorageConfig, credentials: Credentials):
    """`mailpod bucket init` run twice would fail, or would drop an administrator's own rules."""
    config = StorageConfig(bucket="fresh", endpoint=storage.endpoint, force_path_style=True, prefix="fleet")
    with admin_client(config, credentials) as client:
        assert create_bucket(client, config) is True
        assert create_bucket(client, config) is False
        set_lifecycle(client, config)
        set_lifecycle(client, config)
        rules = client.get_bucket_lifecycle_configuration(Bucket="fresh")["Rules"]
        assert [rule.get("ID") for rule in rules] == ["postroom-aborted-uploads"]
        assert all(finding.passed for finding in check_settings(client, config))


def test_settings_that_would_lose_or_keep_mail_are_found(storage: StorageConfig, credentials: Credentials):
    """A rule that expires objects would delete mail silently; versioning would keep what was erased."""
    storage = StorageConfig(bucket="unsettled", endpoint=storage.endpoint, force_path_style=True)
    with admin_client(storage, credentials) as client:
        create_bucket(client, storage)
        client.put_bucket_lifecycle_configuration(
            Bucket=storage.bucket,
            LifecycleConfiguration={"Rules": [{"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}]},
        )
        client.put_bucket_versioning(Bucket=storage.bucket, VersioningConfiguration={"Status": "Enabled"})
        found = {finding.check: finding for finding in check_settings(client, storage)}
    assert not found["lifecycle"].passed
    assert "tidy" in found["lifecycle"].detail
    assert not found["versioning"].passed
    assert not found["versioning"].fatal


def test_an_administrator_without_rights_is_told(storage: StorageConfig):
    """A traceback would be all that a wrong key gets."""
    with (
        pytest.raises((StoreUnavailable, ClientError), match=r"InvalidAccessKeyId|denied|403"),
        admin_client(storage, Credentials("nobody", "wrong")) as client,
    ):
        create_bucket(client, storage)

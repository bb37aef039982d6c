"""What an administrator does to a bucket once: create it, set the one lifecycle rule, look for settings that defeat a promise (boto3)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mailpod.adapters.conformance import Finding
from mailpod.adapters.objects import Credentials
from mailpod.contract import StorageConfig
from mailpod.errors import StoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ABORTED_UPLOADS_DAYS: Final = 2  # parts of uploads that nobody finished; a live upload takes minutes
_RULE_ID: Final = "postroom-aborted-uploads"


@contextmanager
def admin_client(config: StorageConfig, credentials: Credentials | None, ca_pem: bytes | None = None) -> Iterator[S3Client]:
    """A boto3 client for the configured endpoint. boto3 takes a CA only from a file, so one exists while the client does."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as bundle:
        if ca_pem is not None:
            bundle.write(ca_pem)
            bundle.flush()
        client: S3Client = boto3.client(
            "s3",
            region_name=config.region,
            endpoint_url=config.endpoint,
            verify=bundle.name if ca_pem is not None else None,
            aws_access_key_id=credentials.access_key_id if credentials else None,
            aws_secret_access_key=credentials.secret_access_key if credentials else None,
            config=Config(
                connect_timeout=5,
                read_timeout=30,
                s3={"addressing_style": "path" if config.force_path_style or config.endpoint else "virtual"},
            ),
        )
        try:
            yield client
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailable(str(error)) from error
        finally:
            client.close()


def create_bucket(client: S3Client, config: StorageConfig) -> bool:
    """Create the bucket; False when it was there already and is ours. Raises botocore's ClientError for anything else."""
    try:
        if config.region == "us-east-1":  # the one region that must not be named (S3 API, CreateBucket)
            client.create_bucket(Bucket=config.bucket)
        else:
            client.create_bucket(Bucket=config.bucket, CreateBucketConfiguration={"LocationConstraint": config.region})  # type: ignore[typeddict-item] # any region name
    except ClientError as error:
        if _code(error) in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            client.head_bucket(Bucket=config.bucket)  # raises when it is somebody else's
            return False
        raise
    return True


def set_lifecycle(client: S3Client, config: StorageConfig) -> None:
    """Add our one rule: drop the parts of aborted uploads. Rules of others are kept."""
    rules = [rule for rule in _rules(client, config.bucket) if rule.get("ID") != _RULE_ID]
    rules.append(
        {
            "ID": _RULE_ID,
            "Status": "Enabled",
            "Filter": {"Prefix": config.prefix},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORTED_UPLOADS_DAYS},
        }
    )
    client.put_bucket_lifecycle_configuration(Bucket=config.bucket, LifecycleConfiguration={"Rules": rules})  # type: ignore[typeddict-item] # rules as read


def check_settings(client: S3Client, config: StorageConfig) -> list[Finding]:
    """Settings that a probe cannot see: lifecycle rules that would expire mail, versioning that keeps what was erased."""
    findings = []
    expiring = [rule for rule in _rules(client, config.bucket) if rule.get("Status") == "Enabled" and _expires(rule)]
    names = ", ".join(str(rule.get("ID", "unnamed")) for rule in expiring)
    findings.append(
        Finding(
            "lifecycle",
            not expiring,
            f"lifecycle rule(s) {names} expire or move objects: mail would be lost. Only AbortIncompleteMultipartUpload may be set."
            if expiring
            else "no rule expires mail",
        )
    )
    try:
        versioning: str = client.get_bucket_versioning(Bucket=config.bucket).get("Status", "Off")
    except ClientError as error:
        versioning = "unknown" if _code(error) in ("NotImplemented", "MethodNotAllowed") else f"unreadable ({_code(error)})"
    findings.append(
        Finding(
            "versioning",
            versioning != "Enabled",
            "versioning is enabled: erased mail lives on in old versions until a lifecycle rule drops noncurrent versions."
            if versioning == "Enabled"
            else f"versioning is {versioning.lower()}",
            fatal=False,
        )
    )
    return findings


def _rules(client: S3Client, bucket: str) -> list[dict[str, object]]:
    try:
        return [dict(rule) for rule in client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", [])]
    except ClientError as error:
        if _code(error) in ("NoSuchLifecycleConfiguration", "NotImplemented", "MethodNotAllowed"):
            return []
        raise


def _expires(rule: dict[str, object]) -> bool:
    # Dropping noncurrent versions is welcome where versioning is on: it is what makes erasure real.
    return any(name in rule for name in ("Expiration", "Transition", "Transitions"))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))

"""`mailpod bucket init|check`: what an administrator does before the first pod, and when a pod says that the bucket is at fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from botocore.exceptions import ClientError

from mailpod.adapters.bucket_admin import admin_client, check_settings, create_bucket, set_lifecycle
from mailpod.adapters.configdir import ConfigDirectory
from mailpod.adapters.conformance import Finding, probe
from mailpod.adapters.objects import open_bucket
from mailpod.adapters.system import SystemClock, SystemEntropy
from mailpod.errors import MailError
from mailpod.main.configuration import ConfigError, Configuration, parse

EXIT_FAULTY: Final = 1  # the bucket does not keep what the store needs
EXIT_CONFIG: Final = 3  # the configuration is wrong (as `mailpod serve`)
EXIT_UNREACHABLE: Final = 4  # no answer, or access denied

config_option = click.option(
    "--config", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the configuration."
)


def read_configuration(folder: Path) -> Configuration:
    """The configuration of a folder; ends the program with `EXIT_CONFIG` and its faults when it is wrong."""
    try:
        return parse(ConfigDirectory(folder).read())
    except (ConfigError, OSError) as error:
        click.echo(str(error), err=True)
        raise SystemExit(EXIT_CONFIG) from None


@click.group()
def bucket() -> None:
    """The bucket: create it, and ask whether it keeps what the store needs.

    Exit codes: 0 all well; 1 the bucket is at fault; 3 the configuration is wrong; 4 the bucket cannot be reached or used.
    """


@bucket.command()
@config_option
def init(config: Path) -> None:
    """Create the bucket if it is not there, and set the one lifecycle rule that is wanted. Safe to repeat."""
    configuration = read_configuration(config)
    storage = configuration.pod.storage
    with _answers(), admin_client(storage, configuration.credentials, configuration.s3_ca) as client:
        made = create_bucket(client, storage)
        click.echo(f"bucket {storage.bucket}: {'created' if made else 'is there already'}")
        try:
            set_lifecycle(client, storage)
            click.echo("lifecycle: parts of aborted uploads are dropped")
        except ClientError as error:
            # Some stores have no lifecycle rules. Mail is safe without one; only rubbish stays.
            click.echo(f"lifecycle: not set, the store says {error}", err=True)


@bucket.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of lines.")
def check(config: Path, *, as_json: bool) -> None:
    """Ask the bucket, also in races, whether it keeps what the store needs; say what it does wrong and which stores do it right."""
    configuration = read_configuration(config)
    storage = configuration.pod.storage
    with _answers(), admin_client(storage, configuration.credentials, configuration.s3_ca) as client:
        client.head_bucket(Bucket=storage.bucket)  # some stores would make a missing bucket at the probe's first PUT
        objects = open_bucket(storage, SystemClock(), credentials=configuration.credentials, ca_pem=configuration.s3_ca)
        findings = asyncio.run(probe(objects, SystemEntropy(), storage.prefix))
        findings += check_settings(client, storage)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            click.echo(f"{_mark(finding):8} {finding.check}: {finding.detail}")
    if any(not finding.passed and finding.fatal for finding in findings):
        raise SystemExit(EXIT_FAULTY)


def _mark(finding: Finding) -> str:
    if finding.passed:
        return "ok"
    return "FAILED" if finding.fatal else "warning"


@contextmanager
def _answers() -> Iterator[None]:
    """Turns what the store answers into one line and an exit code."""
    try:
        yield
    except (MailError, ClientError) as error:
        click.echo(f"the bucket cannot be used: {error}", err=True)
        raise SystemExit(EXIT_UNREACHABLE) from None

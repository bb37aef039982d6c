"""`mailpod account …`: look at mailboxes in the bucket, check them, bring mail back, move house, erase. Works beside running pods."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import click

from mailpod.adapters.mailfiles import FileMessage, MaildirWriter, MboxWriter, maildir_folder_name, read_maildir, read_mbox
from mailpod.adapters.objects import open_bucket
from mailpod.adapters.system import SystemClock, SystemEntropy, ThreadOffload
from mailpod.errors import Corrupt, MailError, Refused, StoreUnavailable
from mailpod.main.bucket_cli import EXIT_CONFIG, EXIT_UNREACHABLE, config_option, read_configuration
from mailpod.store import MailStore, StoreOptions, admin
from mailpod.store.types import NewMessage

EXIT_FOUND: Final = 1  # verify found something wrong; a request was refused
_OFFLOAD_THREADS: Final = 2


@click.group()
def account() -> None:
    """Mailboxes in the bucket.

    Exit codes: 0 done; 1 refused, or `verify` found something wrong; 3 the configuration is wrong; 4 the bucket cannot be reached or used.
    """


@asynccontextmanager
async def _store(config: Path) -> AsyncIterator[MailStore]:
    configuration = read_configuration(config)
    clock, entropy, offload = SystemClock(), SystemEntropy(), ThreadOffload(_OFFLOAD_THREADS)
    storage = configuration.pod.storage
    objects = open_bucket(storage, clock, credentials=configuration.credentials, ca_pem=configuration.s3_ca)
    options = StoreOptions(
        prefix=storage.prefix, retention_s=float(storage.retention_seconds), pod=f"mailpod-account-{entropy.bytes(6).hex()}"
    )
    store = MailStore(objects, clock, entropy, offload, options)
    try:
        yield store
    finally:
        await store.drain()
        offload.close()


def _run(config: Path, work: Callable[[MailStore], Awaitable[int | None]]) -> None:
    """Run one command; errors become one line and an exit code."""

    async def main() -> int:
        async with _store(config) as store:
            return await work(store) or 0

    try:
        code = asyncio.run(main())
    except (Refused, Corrupt) as error:
        click.echo(f"refused: {error}", err=True)
        code = EXIT_FOUND
    except (StoreUnavailable, MailError) as error:
        click.echo(f"the bucket cannot be used: {error}", err=True)
        code = EXIT_UNREACHABLE
    except OSError as error:
        click.echo(str(error), err=True)
        code = EXIT_FOUND
    raise SystemExit(code)


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds") if seconds else "-"


@account.command("list")
@config_option
def list_command(config: Path) -> None:
    """The addresses of all mailboxes that have anything in the bucket, erased ones too."""

    async def work(store: MailStore) -> None:
        async for address in admin.list_accounts(store):
            click.echo(address)

    _run(config, work)


@account.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
@click.argument("address")
def show(config: Path, address: str, *, as_json: bool) -> None:
    """Folders, sizes, and how far back the mailbox can be restored."""

    async def work(store: MailStore) -> None:
        info = await admin.show(store, address)
        if as_json:
            click.echo(json.dumps(_plain(info), indent=2))
            return
        click.echo(f"{info.address}  {'ERASED  ' if info.closed else ''}{info.usage.messages} messages, {info.usage.bytes} bytes")
        click.echo(f"entry {info.head} of {_time(info.time)}, incarnation {info.incarnation}, restorable from entry {info.floor} on")
        for folder in info.folders:
            click.echo(f"  {folder.name:30} {folder.messages:8} messages {folder.bytes:14} bytes  {folder.special_use}")

    _run(config, work)


@account.command()
@config_option
@click.option("--from", "first", type=click.IntRange(min=1), default=1, show_default=True, help="First entry.")
@click.option("--to", "last", type=click.IntRange(min=1), default=None, help="Last entry; left out: the newest.")
@click.argument("address")
def log(config: Path, address: str, first: int, last: int | None) -> None:
    """What happened, entry by entry, one JSON line each. No message text."""

    async def work(store: MailStore) -> None:
        async for entry in admin.log_entries(store, address, first, last):
            click.echo(json.dumps({**entry._asdict(), "time": _time(entry.time)}, default=str))

    _run(config, work)


@account.command()
@config_option
@click.option("--all", "everybody", is_flag=True, help="All mailboxes.")
@click.argument("address", required=False)
def verify(config: Path, address: str | None, *, everybody: bool) -> None:
    """Replay everything from the first entry and check every checksum; says what is wrong and where."""

    async def work(store: MailStore) -> int:
        wrong = 0
        async for each in _chosen(store, address, everybody=everybody):
            report = await admin.verify(store, each)
            click.echo(
                f"{each}: {report.entries} entries, {report.bodies} bodies, {report.snapshots} snapshots, {len(report.findings)} findings"
            )
            for finding in report.findings:
                click.echo(f"  {'MAIL' if finding.loses_mail else 'derived'}  {finding.where}: {finding.what}")
            wrong += bool(report.findings)
        return EXIT_FOUND if wrong else 0

    _run(config, work)


@account.command()
@config_option
@click.option("--all", "everybody", is_flag=True, help="All mailboxes.")
@click.argument("address", required=False)
def reclaim(config: Path, address: str | None, *, everybody: bool) -> None:
    """Give back the space of what was expunged before the retention window. Pods do this by themselves."""

    async def work(store: MailStore) -> None:
        async for each in _chosen(store, address, everybody=everybody):
            try:
                done = await admin.reclaim(store, each)
            except Refused as error:
                if not everybody:
                    raise
                click.echo(f"{each}: {error}")
                continue
            click.echo(f"{each}: {'nothing to reclaim' if done is None else f'reclaimed what no state from entry {done.floor} on needs'}")

    _run(config, work)


@account.command()
@config_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("address")
def erase(config: Path, address: str, *, yes: bool) -> None:
    """Close the mailbox and delete all its mail, for good. Take it out of the configuration first: mail that arrives would make it anew."""
    configuration = read_configuration(config)
    if any(box.address == address for box in configuration.mailboxes):
        click.echo(f"{address} is still in the configuration; take it out first", err=True)
        raise SystemExit(EXIT_CONFIG)
    if not yes:
        click.confirm(f"Erase all mail of {address}? Nothing brings it back", abort=True)

    async def work(store: MailStore) -> None:
        await admin.erase(store, address)
        click.echo(f"{address}: erased")

    _run(config, work)


@account.command()
@config_option
@click.option("--at", "moment", required=True, help="When, ISO 8601: 2026-11-24T09:30:00Z; without a zone: UTC.")
@click.option("--into", default=None, help="A folder for all of it; left out: what is missing comes back where it was.")
@click.option("--dry-run", is_flag=True, help="Only say what would come back.")
@click.argument("address")
def restore(config: Path, address: str, moment: str, into: str | None, *, dry_run: bool) -> None:
    """Bring back the mail of a moment inside the retention window."""
    at = _moment(moment)

    async def work(store: MailStore) -> None:
        restored = await admin.restore(store, address, at, into, dry_run=dry_run)
        for folder, count in restored.messages.items():
            click.echo(f"  {folder:30} {count:8} messages")
        verb = "would come back" if dry_run else "came back"
        click.echo(f"{sum(restored.messages.values())} messages {verb} (state at entry {restored.seq})")

    _run(config, work)


_FORMAT: Final = click.option("--format", "kind", type=click.Choice(["mbox", "maildir"]), required=True, help="Of the files.")


@account.command("export")
@config_option
@_FORMAT
@click.option("--at", "moment", default=None, help="As it was then; left out: now.")
@click.argument("address")
@click.argument("target", type=click.Path(file_okay=False, path_type=Path))
def export_command(config: Path, address: str, kind: str, moment: str | None, target: Path) -> None:
    """Write all mail into a new directory: a Maildir with Maildir++ folders, or one mbox file a folder."""
    at = _moment(moment) if moment else None

    async def work(store: MailStore) -> None:
        total = (await admin.show(store, address)).usage.messages
        count = 0
        writers: dict[str, MboxWriter | MaildirWriter] = {}
        with click.progressbar(length=total, label=address) as bar:
            async for message in admin.export_messages(store, address, at):
                writer = writers.get(message.folder) or writers.setdefault(message.folder, _writer(kind, target, message.folder))
                if isinstance(writer, MboxWriter):
                    writer.add(message.raw, message.flags, message.internaldate)
                else:
                    writer.add(f"{message.uid:010d}.{address}", message.raw, message.flags, message.internaldate)
                count += 1
                bar.update(1)
        for writer in writers.values():
            if isinstance(writer, MboxWriter):
                writer.close()
        click.echo(f"{count} messages in {len(writers)} folders")

    if kind == "mbox" and target.exists() and any(target.iterdir()):
        click.echo(f"{target} is not empty: an mbox file would get everything twice", err=True)
        raise SystemExit(EXIT_FOUND)
    _run(config, work)


@account.command("import")
@config_option
@_FORMAT
@click.option("--folder", default="INBOX", show_default=True, help="Where it goes; folders of a Maildir go below it (INBOX: beside it).")
@click.argument("address")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
def import_command(config: Path, address: str, kind: str, folder: str, source: Path) -> None:
    """Read an mbox file or a Maildir. One that was interrupted goes on where it stopped when the same command is given again."""
    configuration = read_configuration(config)
    if all(box.address != address for box in configuration.mailboxes):
        click.echo(f"{address} is not in the configuration", err=True)
        raise SystemExit(EXIT_CONFIG)
    read: Callable[[Path, str], Any] = read_mbox if kind == "mbox" else read_maildir

    total = sum(1 for _ in read(source, folder))
    key = f"{kind}:{source.resolve()}:{folder}"[-512:]

    async def work(store: MailStore) -> None:
        task = admin.Import(store, address, key)
        done = await task.start()
        with click.progressbar(length=total, label=address) as bar:
            bar.update(min(done, total))
            message: FileMessage
            for number, message in enumerate(read(source, folder)):
                if number >= done:
                    await task.add(message.folder, NewMessage(message.raw, message.flags, message.internaldate))
                    bar.update(1)
        click.echo(f"{await task.finish()} messages imported" + (f" ({done} of them by an earlier run)" if done else ""))

    _run(config, work)


def _writer(kind: str, target: Path, folder: str) -> MboxWriter | MaildirWriter:
    target.mkdir(parents=True, exist_ok=True)
    if kind == "mbox":
        return MboxWriter(target / (folder.replace("/", ".") + ".mbox"))
    if not (target / "cur").is_dir():
        MaildirWriter(target)  # the Maildir itself, also when INBOX is empty
    return MaildirWriter(target / maildir_folder_name(folder))


async def _chosen(store: MailStore, address: str | None, *, everybody: bool) -> AsyncIterator[str]:
    if everybody == (address is not None):
        raise click.UsageError("name one ADDRESS, or say --all")
    if address is not None:
        yield address
        return
    async for each in admin.list_accounts(store):
        yield each


def _moment(text: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no ISO 8601 time, such as 2026-11-24T09:30:00Z", param_hint="--at") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _plain(value: Any) -> Any:
    """NamedTuples to dicts, all the way down."""
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value

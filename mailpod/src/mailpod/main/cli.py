"""`mailpod`: the command line. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Final

import click

# Command groups that live in modules of their own, imported only when they are used.
_GROUPS: Final = {"account": "mailpod.main.account_cli", "bucket": "mailpod.main.bucket_cli"}


class _Group(click.Group):
    """Finds `account` and `bucket` in their modules: `mailpod serve` must not wait for what they import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = [name for name, module in _GROUPS.items() if importlib.util.find_spec(module) is not None]
        return sorted([*super().list_commands(ctx), *found])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _GROUPS.get(cmd_name)
        if module is None or importlib.util.find_spec(module) is None:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(module), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Group)
@click.version_option(package_name="mailpod")
def main() -> None:
    """A mail server that keeps everything in a bucket."""


@main.command()
@click.option("--config", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the configuration.")
@click.option("--data", default=None, type=click.Path(file_okay=False, path_type=Path), help="Folder for the body cache; it may vanish.")
@click.option("--bind", default=None, help="Address to listen on; left out: all, IPv4 and IPv6.")
@click.option(
    "--termination-log",
    default=Path("/dev/termination-log"),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where a reason for ending is written, if the file is there.",
)
def serve(config: Path, data: Path | None, bind: str | None, termination_log: Path) -> None:
    """Run a mail pod until SIGTERM or SIGINT.

    Exit codes: 0 drained; 1 an error of its own; 3 the configuration is wrong; 4 the bucket does not keep what the store needs;
    5 drained, but not everything ended in time (nothing that was acknowledged is lost).
    """
    from mailpod.main.serve import Options, run  # noqa: PLC0415 - `mailpod --help` must not load the server

    raise SystemExit(run(Options(config, data, bind, termination_log)))


def entry() -> None:
    """The program. Leaves by os._exit after flushing: a short process can be aborted while the object store's threads end."""
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""`mailoperator`: the command line."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mailoperator.api.documents import Resources
from mailoperator.api.problems import Problem
from mailoperator.desired.claims import Key
from mailoperator.desired.podconfig import Keys, Placement, build
from mailoperator.main import local

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def main() -> None:
    """Postroom's operator: what it would do, tried on files."""


@main.command()
@click.argument("folder", type=_FOLDER)
@click.option("--config", "out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@click.option("--fleet", default=None, help="The MailDomain with spec.pods (NAME or NAMESPACE/NAME); needed when there are several.")
@click.option("--web-port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Health, metrics and pod to pod.")
@click.option("--peer", "peers", multiple=True, help="http://host:port of another pod, or one DNS name that resolves to all. Repeatable.")
@click.option("--credentials", default=None, type=click.Path(dir_okay=False, path_type=Path), help="Default: credentials.yaml beside OUT.")
def render(folder: Path, out: Path, fleet: str | None, web_port: int, peers: tuple[str, ...], credentials: Path | None) -> None:
    """Render the resources in FOLDER to the configuration of a pod, for `mailpod serve --config OUT`.

    Passwords that no Secret gives are generated once, and kept with the fleet's keys in credentials.yaml beside OUT.
    Exit codes: 0 rendered (what is left out is named), 1 nothing written.
    """
    remembered = credentials if credentials is not None else out.absolute().parent / "credentials.yaml"
    resources = local.load(folder, remembered)
    if resources.problems:
        # An API server would not have taken these objects; rendering without them would take away what is in force.
        _report(resources.problems)
        raise SystemExit(1)
    key = _fleet(resources, fleet)
    result, changed = local.render(resources, key, out, Placement(web_port, peers), remembered)
    _report(result.problems)
    if result.files is None:
        raise SystemExit(1)
    for secret in result.made:
        click.echo(f"made a password for {secret.values['address'].decode()}: see {remembered}")
    click.echo(f"{'rendered' if changed else 'nothing changed in'} {out}, generation {result.generation}")


@main.command()
@click.argument("folder", type=_FOLDER)
@click.option("--fleet", default=None, help="The MailDomain with spec.pods; left out: all of them.")
def check(folder: Path, fleet: str | None) -> None:
    """Say what is wrong with the resources in FOLDER, without writing anything. Exit codes: 0 nothing, 1 something."""
    resources = local.load(folder)
    problems = list(resources.problems)
    keys = local.fleets(resources) if fleet is None else [_fleet(resources, fleet)]
    if not keys:
        problems.append(Problem("MailDomain", "default", "?", "spec.pods", "NotFound", "no MailDomain runs pods"))
    for key in keys:
        # Throw-away keys: the verifiers are not kept, only the problems.
        found = build(resources, key, Keys(bytes(32), bytes(32)), os.urandom, Placement(), {}).problems
        problems += [problem for problem in found if problem not in problems]
    _report(problems)
    if problems:
        raise SystemExit(1)
    click.echo(f"{len(resources.domains)} MailDomains and {len(resources.mailboxes)} Mailboxes are as they should be")


def _fleet(resources: Resources, wanted: str | None) -> Key:
    keys = local.fleets(resources)
    if wanted is not None:
        keys = [key for key in keys if wanted in (key[1], "/".join(key))]
        if not keys:
            raise click.ClickException(f"there is no MailDomain {wanted} with spec.pods")
    if not keys:
        raise click.ClickException("there is no MailDomain with spec.pods")
    if len(keys) > 1:
        raise click.ClickException(f"several MailDomains run pods; choose one with --fleet: {', '.join('/'.join(key) for key in keys)}")
    return keys[0]


def _report(problems: list[Problem]) -> None:
    for problem in problems:
        click.echo(str(problem), err=True)

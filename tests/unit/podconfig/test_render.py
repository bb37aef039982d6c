"""`mailoperator render` and `check`: files on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mailoperator.main.cli import main
from mailoperator.main.output import current, write
from mailpod.adapters.configdir import ConfigDirectory
from mailpod.main.configuration import parse

EXAMPLES = Path(__file__).parents[3] / "examples"


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_examples_render_to_what_a_pod_takes(tmp_path):
    """The first thing that a newcomer does must work: render the examples, serve the result."""
    result = run("render", EXAMPLES, "--config", tmp_path / "pod")
    assert result.exit_code == 0, result.output
    configuration = parse(ConfigDirectory(tmp_path / "pod").read())
    assert {box.address for box in configuration.mailboxes} == {"alice@example.com", "bob@example.com", "carol@example.org"}


def test_second_render_changes_nothing(tmp_path):
    """Nothing is written when nothing changed, and generated passwords stay what they were."""
    run("render", EXAMPLES, "--config", tmp_path / "pod")
    remembered = (tmp_path / "credentials.yaml").read_bytes()
    link = (tmp_path / "pod" / "..data").readlink()
    result = run("render", EXAMPLES, "--config", tmp_path / "pod")
    assert "nothing changed" in result.output
    assert (tmp_path / "credentials.yaml").read_bytes() == remembered
    assert (tmp_path / "pod" / "..data").readlink() == link
    other = run("render", EXAMPLES, "--config", tmp_path / "other")
    assert "made a password" not in other.output
    assert current(tmp_path / "other") == current(tmp_path / "pod")


def test_secrets_are_the_owners_alone(tmp_path):
    """Other users of the machine must read neither passwords nor keys."""
    run("render", EXAMPLES, "--config", tmp_path / "pod")
    for path in (tmp_path / "credentials.yaml", *(tmp_path / "pod" / "..data").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    passwords = {
        document["metadata"]["name"]: document["stringData"]
        for document in yaml.safe_load_all((tmp_path / "credentials.yaml").read_text())
        if document
    }
    assert passwords["alice-credentials"]["address"] == "alice@example.com"


def test_bad_folder_writes_nothing(tmp_path):
    """What is in force stays in force when a file was broken."""
    folder = tmp_path / "in"
    folder.mkdir()
    for path in EXAMPLES.glob("*.yaml"):
        (folder / path.name).write_bytes(path.read_bytes())
    run("render", folder, "--config", tmp_path / "pod")
    before = current(tmp_path / "pod")
    text = (folder / "mailboxes.yaml").read_text()
    (folder / "mailboxes.yaml").write_text(text.replace("10Gi", "10GB"))
    result = run("render", folder, "--config", tmp_path / "pod")
    assert result.exit_code == 1
    assert "Mailbox mail/alice: spec.quota: must be a size such as" in result.stderr
    assert current(tmp_path / "pod") == before
    assert run("check", folder).exit_code == 1


def test_check_of_the_examples():
    """The offline check agrees with the render."""
    result = run("check", EXAMPLES)
    assert result.exit_code == 0
    assert "2 MailDomains and 3 Mailboxes" in result.output


def test_several_fleets_must_be_told_apart(tmp_path):
    """Or `render` would pick one of two fleets by chance."""
    folder = tmp_path / "in"
    folder.mkdir()
    text = (EXAMPLES / "maildomain.yaml").read_text().split("---")[0]
    (folder / "a.yaml").write_text(
        text + "---\n" + text.replace("example-com\n  namespace", "other\n  namespace").replace("example.com", "x.example")
    )
    result = run("render", folder, "--config", tmp_path / "pod")
    assert "several MailDomains run pods" in result.output
    assert run("render", folder, "--config", tmp_path / "pod", "--fleet", "nope").exit_code == 1


def test_swap_shows_old_or_new_and_never_a_mixture(tmp_path):
    """A pod that reads in the middle of a change must see one of the two."""
    out = tmp_path / "pod"
    assert write(out, {"a": b"1", "b": b"1"}, "g1")
    directory = ConfigDirectory(out)
    assert directory.read() == {"a": b"1", "b": b"1"}
    assert write(out, {"a": b"2", "c": b"2"}, "g2")
    assert directory.read() == {"a": b"2", "c": b"2"}
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith("..")) == ["a", "c"]
    assert not write(out, {"a": b"2", "c": b"2"}, "g2")
    assert len([path for path in out.iterdir() if path.name.startswith("..")]) == 2


def test_json_is_yaml_too(tmp_path):
    """`kubectl get -o json > file.json` is a folder's content as well, lists included."""
    import json

    folder = tmp_path / "in"
    folder.mkdir()
    items = [item for path in EXAMPLES.glob("*.yaml") for item in yaml.safe_load_all(path.read_text())]
    (folder / "all.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    assert run("check", folder).exit_code == 0


@pytest.mark.parametrize("arguments", [["render", "/nonexistent", "--config", "x"], ["render", str(EXAMPLES)]])
def test_usage_errors(arguments):
    """A wrong command line says so and exits 2."""
    assert run(*arguments).exit_code == 2

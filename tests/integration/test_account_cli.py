"""`mailpod account` as an administrator runs it, beside running pods."""

from __future__ import annotations

import datetime as dt
import imaplib
import json
import subprocess
import time
from pathlib import Path

import pytest

from mailpod.adapters.mailfiles import read_maildir, read_mbox
from mailpod.contract import ListenerName
from tests.support.ledger import compose, read_all
from tests.support.pods import MAILPOD, PASSWORD, Fleet

pytestmark = pytest.mark.timeout(120)
ALICE, BOB = "alice@example.com", "bob@example.com"


def _account(fleet: Fleet, *arguments: str, code: int = 0) -> str:
    command = [MAILPOD, "account", arguments[0], "--config", str(fleet.pods[0].config_dir), *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def _imap(fleet: Fleet, user: str) -> imaplib.IMAP4_SSL:
    imap = imaplib.IMAP4_SSL("127.0.0.1", fleet.pods[0].ports[ListenerName.IMAPS], ssl_context=fleet.tls_context(), timeout=30)
    imap.login(user, PASSWORD)
    imap.select("INBOX")
    return imap


def test_moving_in_looking_around_and_moving_out(fleet: Fleet, tmp_path: Path):
    """A person's old mail would come without flags or folders, or an export could not be read elsewhere."""
    for folder in ("", ".Archive.2026"):
        for part in ("cur", "new", "tmp"):
            (tmp_path / "old" / folder / part).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "old" / folder / "cur" / f"{number:04d}.old:2,{'S' if number % 2 else 'FS'}").write_bytes(compose(number))
    first = _account(fleet, "import", "--format", "maildir", ALICE, str(tmp_path / "old"))
    assert "60 messages imported" in first
    stored = read_all(fleet.pods[1].ports[ListenerName.IMAPS], ALICE, PASSWORD, fleet.tls_context(), '"Archive/2026"')
    assert sorted(stored) == sorted(compose(number) for number in range(30))
    assert ALICE in _account(fleet, "list").split()
    shown = json.loads(_account(fleet, "show", "--json", ALICE))
    assert {folder["name"]: folder["messages"] for folder in shown["folders"]}["Archive/2026"] == 30
    assert "0 findings" in _account(fleet, "verify", ALICE)
    lines = _account(fleet, "log", ALICE).splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, shown["head"] + 1))
    assert "line 1 of message" not in "".join(lines)
    _account(fleet, "export", "--format", "maildir", ALICE, str(tmp_path / "out"))
    out = list(read_maildir(tmp_path / "out", "INBOX"))
    assert sorted(message.raw for message in out) == sorted(2 * [compose(number) for number in range(30)])
    assert sum("\\Flagged" in message.flags for message in out) == 30
    _account(fleet, "export", "--format", "mbox", ALICE, str(tmp_path / "boxes"))
    assert len(list(read_mbox(tmp_path / "boxes" / "Archive.2026.mbox", "x"))) == 30
    again = _account(fleet, "export", "--format", "mbox", ALICE, str(tmp_path / "boxes"), code=1)
    assert "not empty" in again


def test_mail_expunged_by_mistake_comes_back(fleet: Fleet, tmp_path: Path):
    """The promise of two weeks would be one that only a developer can keep."""
    box = tmp_path / "box"
    box.write_bytes(b"".join(b"From x Tue Nov 24 10:00:00 2026\n" + compose(number).replace(b"\r\n", b"\n") + b"\n" for number in range(5)))
    _account(fleet, "import", "--format", "mbox", BOB, str(box))
    time.sleep(2.1)  # the store's clock has whole seconds
    before = dt.datetime.now(dt.UTC).isoformat()
    time.sleep(1.1)
    imap = _imap(fleet, BOB)
    imap.store("1:*", "+FLAGS.SILENT", "\\Deleted")
    imap.expunge()
    imap.logout()
    assert "5 messages would come back" in _account(fleet, "restore", "--at", before, "--dry-run", BOB)
    assert "5 messages came back" in _account(fleet, "restore", "--at", before, "--into", "Rescued", BOB)
    rescued = read_all(fleet.pods[1].ports[ListenerName.IMAPS], BOB, PASSWORD, fleet.tls_context(), "Rescued")
    assert sorted(rescued) == sorted(compose(number) for number in range(5))
    assert "beyond-retention" in _account(fleet, "restore", "--at", "2020-01-01", BOB, code=1)
    assert "no ISO 8601 time" in _account(fleet, "restore", "--at", "yesterday", BOB, code=2)
    assert BOB in _account(fleet, "reclaim", BOB)


def test_erasing_asks_for_the_right_order_and_erases(fleet: Fleet):
    """An account that is still configured would be made anew by the next mail; or an erased one would keep its mail."""
    assert "take it out first" in _account(fleet, "erase", "--yes", ALICE, code=3)
    gone = "carol@example.com"
    assert "no-such-account" in _account(fleet, "erase", "--yes", gone, code=1)
    assert "no-such-account" in _account(fleet, "show", gone, code=1)
    kept = list(fleet.mailboxes)
    fleet.mailboxes = [box for box in fleet.mailboxes if box.address != BOB]
    fleet.write()
    try:
        assert "erased" in _account(fleet, "erase", "--yes", BOB)
        assert "ERASED" in _account(fleet, "show", BOB)
        assert "0 findings" in _account(fleet, "verify", BOB)
    finally:
        fleet.mailboxes = kept
        fleet.write()

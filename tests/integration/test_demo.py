"""`make demo` and `make demo-check`, as a newcomer runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def command(directory: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.demo", f"--directory={directory}", *arguments]


@pytest.mark.case(28)
@pytest.mark.case(29)
def test_demo_check_loses_nothing(tmp_path):
    """One of two pods is killed in a burst of 200 messages: every message that was acknowledged can be read."""
    done = subprocess.run(command(tmp_path / "demo", "--check"), cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("lost=")]
    assert line.startswith("lost=0 acknowledged=200 "), line
    assert "corrupt=0 phantom=0 duplicates=0" in line


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_demo_writes_endpoints_and_stops_all(tmp_path):
    """Other programs attach by endpoints.json; Ctrl-C leaves no process behind."""
    directory = tmp_path / "demo"
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(command(directory), cwd=ROOT, stdout=out, stderr=out, start_new_session=True)
        try:
            deadline = time.monotonic() + 150
            while not (directory / "endpoints.json").exists():
                assert process.poll() is None, (tmp_path / "out").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            endpoints = json.loads((directory / "endpoints.json").read_text())
            names = {"smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "web", "pid"}
            assert [set(pod) for pod in endpoints["pods"]] == [names, names]
            assert {account["address"] for account in endpoints["accounts"]} == {
                "alice@example.com",
                "bob@example.com",
                "carol@example.org",
            }
            assert "BEGIN CERTIFICATE" in Path(endpoints["ca"]).read_text()
            pids = [pod["pid"] for pod in endpoints["pods"]] + [endpoints["s3"]["pid"]]
            assert all(map(alive, pids))
            second = subprocess.run(command(directory), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            assert second.returncode == 1
            assert "running already" in second.stderr
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(120)
    assert code == 0
    assert not [pid for pid in pids if alive(pid)]
    text = (tmp_path / "out").read_text()
    for expected in ("by SMTP through pod-0", "by IMAP from pod-1", "by POP3 from pod-1", "Thunderbird", "mutt", "/metrics"):
        assert expected in text

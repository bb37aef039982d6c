"""FETCH BODY[] of everything: warm from the pod's cache, plain and over TLS; cold from the bucket, large entries and small ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from bench.imap import fill_by_append, fill_maildir
from bench.imap_client import Imap
from bench.peers import PASSWORD as PEER_PASSWORD
from bench.peers import Peers
from bench.table import Result, Row
from mailpod.contract import ListenerName
from tests.support.pods import PASSWORD, Pod

LARGE, SMALL = "large", "small"
LARGE_BYTES = 500_000
SMALL_BYTES = 10_000
FETCH = "FETCH 1:* BODY.PEEK[]"


def start_plain(pod: Pod) -> None:
    """Start `bench.plain_pod` in the place of a pod's own program."""
    pod.data_dir.mkdir(parents=True, exist_ok=True)
    with pod.log.open("ab") as log:
        pod.process = subprocess.Popen(
            [sys.executable, "-m", "bench.plain_pod", "--config", str(pod.config_dir), "--data", str(pod.data_dir)], stdout=log, stderr=log
        )
    pod.wait_ready()


def fill(pod: Pod, peers: Peers | None, large: int, small: int) -> None:
    """Large messages ten to an entry; small ones as a lone sender delivers them, each an entry of its own."""
    fill_by_append(pod.ports[ListenerName.IMAPS], f"{LARGE}@example.com", PASSWORD, large, LARGE_BYTES, batch=10)
    command = [
        sys.executable, "-m", "bench.smtp_load", "--port", str(pod.ports[ListenerName.SMTP]), "--messages", str(small), "--clients", "1",
        "--bytes", str(SMALL_BYTES), "--rcpt", f"{SMALL}@example.com",
    ]  # fmt: skip
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if answer["accepted"] != small:
        raise RuntimeError(f"only {answer} of {small} accepted")
    if peers is not None:
        fill_maildir(peers, LARGE, large, LARGE_BYTES)


def _fetch(port: int, user: str, password: str, *, tls: bool, times: int = 1) -> tuple[float, int]:
    """The best time, in seconds, of several fetches of everything, and the bytes that came."""
    walls = []
    with Imap(port, tls=tls) as imap:
        imap.login(user, password)
        imap.command("EXAMINE INBOX")
        for _ in range(times):
            imap.command(FETCH)
            walls.append(imap.seconds)
        return min(walls), imap.received


def _warm(port: int, user: str, password: str, size: int, *, tls: bool) -> float:
    """MB/s."""
    _fetch(port, user, password, tls=tls)
    seconds, received = _fetch(port, user, password, tls=tls, times=4)
    if received < size:
        raise RuntimeError(f"{received} bytes instead of {size}")
    return received / seconds / 1e6


def _cold(pod: Pod, user: str) -> tuple[float, int]:
    """Seconds and bytes of a pod that has neither cache nor view."""
    if pod.process is not None:
        pod.stop()
    shutil.rmtree(pod.data_dir / "bodies", ignore_errors=True)
    start_plain(pod)
    return _fetch(pod.ports[ListenerName.IMAP], f"{user}@example.com", PASSWORD, tls=False)


def run(result: Result, pod: Pod, plain: Pod, peers: Peers | None, large: int, small: int) -> None:
    """Four rows; `plain` runs `bench.plain_pod` on the same bucket."""
    seconds, received = _cold(plain, SMALL)
    rate = small / seconds
    result.add(Row(f"FETCH BODY[] cold, {small:,} messages of 10 KB, an entry each", "≥ 900 /s", f"{rate:.0f} /s", reached=rate >= 900))
    if received < small * SMALL_BYTES:
        raise RuntimeError(f"{received} bytes for {small} messages")
    seconds, received = _cold(plain, LARGE)
    speed = received / seconds / 1e6
    what = f"{large:,} messages of 500 KB"
    result.add(Row(f"FETCH BODY[] cold, {what}, entries ≥ 1 MB", "≥ 200 MB/s", f"{speed:.0f} MB/s", reached=speed >= 200))
    for name, tls, target, port, peer_port in (
        ("plaintext", False, 900, plain.ports[ListenerName.IMAP], peers.imap if peers else 0),
        ("TLS", True, 350, pod.ports[ListenerName.IMAPS], peers.imaps if peers else 0),
    ):
        ours = _warm(port, f"{LARGE}@example.com", PASSWORD, large * LARGE_BYTES, tls=tls)
        peer = _warm(peer_port, LARGE, PEER_PASSWORD, large * LARGE_BYTES, tls=tls) if peers else 0.0
        result.add(
            Row(
                f"FETCH BODY[] warm, {what}, {name}", f"≥ {target} MB/s", f"{ours:.0f} MB/s", f"{peer:.0f} MB/s" if peer else "",
                f"{ours / peer:.2f}" if peer else "", ours >= target,
            )
        )  # fmt: skip

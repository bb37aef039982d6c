"""`python -m bench`: both sides, one machine, one run. Prints each row as it comes and writes docs/PERFORMANCE.md.

`--only smtp imap` runs some of the groups (then nothing is written), `--no-peers` leaves Postfix and Dovecot out, `--quick` uses a tenth of
the messages.
"""

from __future__ import annotations

import argparse
import datetime as dt
import resource
import shutil
import tempfile
from pathlib import Path

import trustme

from bench import bodies, imap, smtp, store
from bench.peers import Peers
from bench.table import Result, machine
from mailpod.adapters.objects import Credentials
from mailpod.contract import ListenerName, StorageConfig
from tests.support.pods import PASSWORD, Fleet, mailbox
from tests.support.seaweed import Seaweed

BASE = Path("/var/tmp/postroom-bench")
PAGE = Path(__file__).parents[1] / "docs" / "PERFORMANCE.md"
GROUPS = ("smtp", "login", "imap", "cold", "bodies", "idle", "memory", "store")
MARKER = "<!-- measured: everything below this line is written by make bench -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)  # 1,000 sessions, and more
    scale = 10 if options.quick else 1
    count = 100_000 // scale
    result = Result()
    shutil.rmtree(BASE, ignore_errors=True)
    BASE.mkdir(parents=True)
    seaweed = Seaweed.start(BASE / "seaweed", volume_mb=1024)
    peers: Peers | None = None
    fleet: Fleet | None = None
    try:
        seaweed.make_bucket("bench")
        names = [*smtp.users(10), imap.USER, bodies.LARGE, bodies.SMALL]
        (BASE / "fleet").mkdir()
        storage = StorageConfig(bucket="bench", endpoint=seaweed.endpoint, force_path_style=True, cache_bytes=8 * 1024**3)
        keys = Credentials(seaweed.access_key, seaweed.secret_key)
        boxes = [mailbox(f"{name}@example.com", quota_bytes=100 * 1024**3) for name in names]
        fleet = Fleet.create(BASE / "fleet", storage, keys, mailboxes=boxes, log_level="Warning").start()
        pod = fleet.pods[0]
        if not options.no_peers:
            peers = _start_peers()
        imaps = pod.ports[ListenerName.IMAPS]
        if "smtp" in options.only:
            smtp.run(result, pod, seaweed, peers, 3000 // scale)
        if "login" in options.only:
            imap.logins(result, pod, peers, 300 // scale)
        if {"imap", "cold"} & set(options.only):
            imap.fill_by_append(imaps, imap.ADDRESS, PASSWORD, count)
            if peers is not None:
                imap.fill_maildir(peers, imap.USER, count)
            if "cold" in options.only:
                imap.cold(result, pod, count)
            if "imap" in options.only:
                imap.run(result, pod, peers, count)
        if "bodies" in options.only:
            (BASE / "plain").mkdir()
            plain = Fleet.create(BASE / "plain", storage, keys, pods=1, mailboxes=boxes, log_level="Warning")
            large, small = 1000 // scale, 2000 // scale
            bodies.fill(pod, peers, large, small)
            try:
                bodies.run(result, pod, plain.pods[0], peers, large, small)
            finally:
                plain.stop()
        if "idle" in options.only:
            imap.fill_by_append(imaps, "bench1@example.com", PASSWORD, 5)
            if peers is not None:
                imap.fill_maildir(peers, "bench1", 5)
            imap.idle(result, fleet.pods, peers, 50, across=False)
            imap.idle(result, fleet.pods, peers, 50, across=True)
            imap.idle(result, fleet.pods, peers, 1000, across=False)
        if "memory" in options.only:
            imap.fill_by_append(imaps, "bench1@example.com", PASSWORD, 5)
            imap.memory(result, pod, peers)
        if "store" in options.only:
            store.run(result, seaweed, "bench", 1_000_000 // scale)
    finally:
        if peers is not None:
            peers.stop()
        if fleet is not None:
            fleet.stop()
        seaweed.stop()
    if tuple(options.only) == GROUPS and not options.quick and peers is not None:
        _write(result)
    shutil.rmtree(BASE, ignore_errors=True)


def _start_peers() -> Peers:
    leaf = trustme.CA().issue_cert("localhost", "127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        cert, key = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())
        return Peers.start(BASE / "peers", cert, key)


def _write(result: Result) -> None:
    head = PAGE.read_text().partition(MARKER)[0] if PAGE.exists() else "# Performance\n\n"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    PAGE.write_text(f"{head}{MARKER}\nMeasured {today} by `make bench` on {machine()}.\n\n{result.markdown()}")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()

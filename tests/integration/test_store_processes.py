"""The store's operations against a real S3 server, by three real processes at once, one of which is killed with SIGKILL."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from mailpod.adapters.objects import Credentials, open_bucket
from mailpod.adapters.system import SystemClock
from mailpod.contract import StorageConfig
from mailpod.store import admin
from tests.sim.pictures import picture
from tests.support.store_audit import Audit, Log, Record, read_ledgers, read_log
from tests.support.store_worker import Task, make_store

ROOT = Path(__file__).parents[2]
ACCOUNTS = ("alice@example.com", "bob@example.com", "team@example.org")
RUN_S = 9.0
SEEDS = [int(seed) for seed in os.environ.get("STORE_PROCESSES_SEEDS", "3").split()]  # more of them for a longer look
_STOP_S = 60.0


class _Workers:
    """The processes of one run, and their ledgers."""

    def __init__(self, base: Path, storage: StorageConfig, credentials: Credentials, seed: int) -> None:
        self._base = base
        self._seed = seed
        self._common = Task(storage, credentials.access_key_id, credentials.secret_access_key, "", 0, "", ACCOUNTS)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ledgers: list[Path] = []

    def task(self, pod: str, gone: tuple[str, ...] = ()) -> Task:
        """What `pod` is told."""
        number = len(self.ledgers)
        return msgspec.structs.replace(
            self._common, pod=pod, seed=self._seed * 1000 + number, ledger=str(self._base / f"{pod}.ledger"), gone=gone
        )

    def start(self, pod: str, gone: tuple[str, ...] = ()) -> None:
        """Another process."""
        task = self.task(pod, gone)
        self.ledgers.append(Path(task.ledger))
        with (self._base / f"{pod}.log").open("wb") as log:
            command = [sys.executable, "-m", "tests.support.store_worker", msgspec.json.encode(task).decode()]
            self.running[pod] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT)

    def lines(self, pod: str) -> int:
        """How far `pod` has come."""
        path = self._base / f"{pod}.ledger"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_lines(self, pod: str, lines: int) -> None:
        """Until `pod` has come so far."""
        deadline = time.monotonic() + 60
        while self.lines(pod) < lines:
            assert self.running[pod].poll() is None, self.log(pod)
            assert time.monotonic() < deadline, f"{pod} has come to {self.lines(pod)}: {self.log(pod)}"
            time.sleep(0.005)

    def kill(self, pod: str) -> None:
        """SIGKILL, wherever it is just now."""
        process = self.running.pop(pod)
        process.kill()
        process.communicate()

    def log(self, pod: str) -> str:
        """What it printed."""
        return (self._base / f"{pod}.log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Let all finish what they do."""
        for process in self.running.values():
            assert process.stdin is not None
            process.stdin.close()
        for pod, process in self.running.items():
            assert process.wait(_STOP_S) == 0, self.log(pod)
        self.running.clear()

    def end(self) -> None:
        """Leave nothing running after a failure."""
        for pod in list(self.running):
            self.kill(pod)


def _assert_that_the_audit_can_fail(logs: dict[str, Log], records: list[Record]) -> None:
    """The same bucket against ledgers that were tampered with: each kind of loss is counted."""
    append = next(one for one in records if one["kind"] == "append" and one["outcome"] == "ok")
    accept = next(one for one in records if one["kind"] == "accept" and one["outcome"] == "ok")
    log = logs[append["account"]]
    kept = next(
        one for one in records
        if one["kind"] == "append" and one["outcome"] == "ok" and one["account"] == log.address
        and log.born[one["seq"], one["folder"], one["uids"][0]] in log.replay.emails()
    )  # fmt: skip
    tampered: dict[str, list[Record]] = {
        "phantom": [{**one, "messages": [], "uids": []} if one is kept else one for one in records],
        "corrupt": [{**one, "messages": [(ident, 2 * size) for ident, size in one["messages"]]} if one is kept else one for one in records],
        "lost": [{**one, "asked": []} if one["kind"] == "expunge" else one for one in records],
    }
    for name, told in tampered.items():
        audit = Audit()
        audit.check(logs, told)
        assert audit.counts[name] > 0, name
    invented = [{**append, "seq": append["seq"] + 1, "uids": [uid + 1_000_000 for uid in append["uids"]]}, {**accept, "queue": "3f-ffff-0"}]
    for one in invented:
        audit = Audit()
        audit.check(logs, [*records, one])
        assert audit.counts["lost"] > 0, one["kind"]


@pytest.mark.timeout(180)
@pytest.mark.case(28)
@pytest.mark.case(29)
@pytest.mark.parametrize("seed", SEEDS)
async def test_three_processes_race_and_one_is_killed(storage: StorageConfig, credentials: Credentials, tmp_path: Path, seed: int):
    """Two pods on one mailbox, of which one dies, would lose mail, double it, or give a UID twice; only real races and kills show it."""
    chance = random.Random(seed)
    workers = _Workers(tmp_path, storage, credentials, seed)
    try:
        began = time.monotonic()
        for number in range(3):
            workers.start(f"pod-{number}")
        victim = f"pod-{chance.randrange(3)}"
        kill_at = chance.randrange(300, 900)
        workers.wait_lines(victim, kill_at)
        time.sleep(chance.random() * 0.05)
        workers.kill(victim)
        workers.start("pod-3", gone=(victim,))
        workers.wait_lines("pod-3", 100)
        time.sleep(max(0.0, RUN_S - (time.monotonic() - began)))
        workers.stop()
    finally:
        workers.end()

    records = read_ledgers(workers.ledgers)
    store, offload = make_store(workers.task("auditor", gone=(victim,)))
    store.transit.pod_gone(victim)
    await store.transit.scan()  # what nobody has worked off yet
    await store.drain()
    store, _ = make_store(workers.task("reader"))
    bucket = open_bucket(storage, SystemClock(), credentials=credentials)
    logs = {address: await read_log(bucket, storage.prefix, address) for address in ACCOUNTS}
    audit = Audit()
    audit.check(logs, records)
    done = {kind: sum(one["kind"] == kind and one["outcome"] == "ok" for one in records) for kind in sorted({r["kind"] for r in records})}
    heads = [max(log.entries) for log in logs.values()]
    print(f"seed={seed} faults=SIGKILL of {victim} after {kill_at} lines N={len(records)} {dict(audit.counts)} {done} heads={heads}")
    assert not audit.wrong, audit.wrong[:10]
    assert [audit.counts[name] for name in ("lost", "corrupt", "phantom", "duplicates", "wrong")] == [0] * 5, audit.counts
    # The run has to have shown something: every kind of operation, several processes in each log, mail forgotten, a death in the middle.
    assert min(done.values()) > 0, done
    assert audit.counts["unknown"] > 0
    assert audit.counts["reclaimed"] > 0
    assert audit.counts["delivered by transit"] > 20
    _assert_that_the_audit_can_fail(logs, records)
    for address, log in logs.items():
        account = await store.open(address)
        assert picture(await account.refresh()) == log.replay.picture(), address
        report = await admin.verify(store, address)
        assert report.findings == [], report.findings[:5]
        assert report.head == report.entries == max(log.entries)
    await store.drain()
    offload.close()

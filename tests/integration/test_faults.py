"""A real S3 server behind a proxy that injects faults, and pods that are killed: nothing that was acknowledged is lost, nothing is doubled.

Each test prints its seed, its faults and its counts (`pytest -s`), as docs/acceptance.md asks.
"""

from __future__ import annotations

import imaplib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from mailpod.adapters.objects import Credentials
from mailpod.contract import ListenerName, StorageConfig
from tests.support.faulty_s3 import Faults, FaultyS3
from tests.support.ledger import Ledger, read_all
from tests.support.pods import PASSWORD, Fleet
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.timeout(300)
BOB = "bob@example.com"

MakeFleet = Callable[..., tuple[Fleet, FaultyS3]]


@pytest.fixture
def make(seaweed: Seaweed, storage: StorageConfig, credentials: Credentials, tmp_path: Path) -> Iterator[MakeFleet]:
    """Builds a fleet whose first pod reaches the bucket through a faulty proxy."""
    stops: list[Callable[[], None]] = []

    def build(seed: int, *, pods: int = 1, data_dir: Path | None = None) -> tuple[Fleet, FaultyS3]:
        proxy = FaultyS3(seaweed.endpoint, seed).start()
        stops.append(proxy.stop)
        fleet = Fleet.create(tmp_path, storage, credentials, pods=pods)
        fleet.pods[0].endpoint = proxy.endpoint
        if data_dir is not None:
            fleet.pods[0].data_dir = data_dir
            fleet.pods[0].log = tmp_path / "pod-0.log"
        fleet.write()
        stops.append(fleet.stop)
        fleet.start()
        return fleet, proxy

    yield build
    for stop in reversed(stops):
        stop()


def _smtp(fleet: Fleet, pod: int = 0) -> int:
    return fleet.pods[pod].ports[ListenerName.SMTP]


def _stored(fleet: Fleet, pod: int = 0, user: str = BOB) -> list[bytes]:
    return read_all(fleet.pods[pod].ports[ListenerName.IMAPS], user, PASSWORD, fleet.tls_context())


def _check(ledger: Ledger, stored: list[bytes], seed: int, faults: object) -> dict[str, int]:
    counts = ledger.audit(stored)
    print(f"seed={seed} faults={faults} N={len(ledger.sent)} {counts} replies={dict(ledger.replies)}")
    assert counts["lost"] == counts["corrupt"] == counts["phantom"] == counts["duplicates"] == 0, counts
    return counts


@pytest.mark.case(26)
@pytest.mark.parametrize(
    ("faults", "at_least_ok"),
    [
        (Faults(error=0.1), 30),
        (Faults(error=0.5), 1),
        (Faults(error=1.0), 0),
        (Faults(delay_s=0.3), 60),
        (Faults(silence=0.1, only_writes=True), 1),
    ],
    ids=["10% errors", "50% errors", "100% errors", "slow", "10% silence"],
)
def test_a_failing_store_gives_4xx_and_never_a_false_250(make: MakeFleet, faults: Faults, at_least_ok: int):
    """Senders would believe that mail is safe which nobody has; or the pod would not come back after the outage."""
    seed = 26
    fleet, proxy = make(seed)
    ledger = Ledger()
    proxy.faults = faults
    ledger.burst([_smtp(fleet)], range(60), clients=6)
    proxy.faults = Faults()
    assert all(reply.startswith(("250 2", "451 4.3.0", "421 4.")) for reply in ledger.replies), ledger.replies
    counts = _check(ledger, _stored(fleet), seed, dict(proxy.counts))
    assert counts["ok"] >= at_least_ok
    if faults.error == 1.0:
        assert counts["ok"] == 0
    # Afterwards everything works again, without a restart.
    ledger.burst([_smtp(fleet)], range(1000, 1010))
    assert _check(ledger, _stored(fleet), seed, "healed")["ok"] >= counts["ok"] + 10


@pytest.mark.case(27)
@pytest.mark.parametrize(
    "faults", [Faults(lost_reply=0.3), Faults(late_write=0.3, late_s=1.5), Faults(lost_reply=0.1, late_write=0.1, error=0.1)],
    ids=["lost replies", "late writes", "all at once"],
)  # fmt: skip
def test_a_write_that_lands_unseen_or_late_is_neither_lost_nor_doubled(make: MakeFleet, faults: Faults):
    """The same message would be filed twice, or a UID would be given twice, after every hiccup of the network."""
    seed = 27
    fleet, proxy = make(seed, pods=2)
    ledger = Ledger()
    proxy.faults = faults
    ledger.burst([_smtp(fleet, 0), _smtp(fleet, 1)], range(80), clients=6)
    proxy.faults = Faults()
    time.sleep(faults.late_s)
    counts = _check(ledger, _stored(fleet, 1), seed, dict(proxy.counts))
    assert counts["ok"] > 0
    assert proxy.counts["lost_reply"] + proxy.counts["late_write"] > 5
    assert sorted(_stored(fleet, 0)) == sorted(_stored(fleet, 1))


@pytest.mark.case(27)
def test_a_message_to_several_people_reaches_each_once_through_a_failing_store(make: MakeFleet):
    """A message to a team would reach some of it twice and some of it never."""
    seed = 28
    fleet, proxy = make(seed, pods=2)
    ledger = Ledger()
    proxy.faults = Faults(lost_reply=0.2, error=0.2)
    ledger.burst([_smtp(fleet, 0)], range(40), clients=4, recipients=("alice@example.com", BOB))
    proxy.faults = Faults()
    expected = sum(outcome == "ok" for outcome in ledger.outcome.values())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if all(len(_stored(fleet, 1, user)) >= expected for user in ("alice@example.com", BOB)):
            break
        time.sleep(0.5)
    for user in ("alice@example.com", BOB):
        assert _check(ledger, _stored(fleet, 1, user), seed, dict(proxy.counts))["ok"] > 0


@pytest.mark.case(28)
@pytest.mark.case(29)
@pytest.mark.case(34)
def test_a_pod_killed_in_a_burst_loses_nothing_and_serves_again_in_time(make: MakeFleet):
    """Killing a pod, as Kubernetes or the kernel's OOM killer does at any time, would lose mail that was acknowledged."""
    seed = 29
    chance = random.Random(seed)
    fleet, _ = make(seed, pods=2)
    ledger = Ledger()
    victim = fleet.pods[0]
    for turn in range(3):
        numbers = range(turn * 300, turn * 300 + 300)
        sender = threading.Thread(target=ledger.burst, args=([_smtp(fleet, 0)], numbers), kwargs={"clients": 8})
        sender.start()
        # In the middle of the burst, wherever each of the eight clients is just then.
        target = turn * 300 + 20 + chance.randrange(150)
        while len(ledger.sent) < target:
            time.sleep(0.002)
        victim.kill()
        started = time.monotonic()
        victim.start()
        assert time.monotonic() - started < 30
        sender.join()
    counts = _check(ledger, _stored(fleet, 1), seed, "3 × SIGKILL")
    assert counts["ok"] > 0
    assert counts["unknown"] + counts["fail"] > 0


@pytest.mark.case(28)
def test_a_pod_killed_with_accepted_mail_for_several_people_is_replaced_by_another(make: MakeFleet):
    """What a dead pod had accepted for a team would wait for ever in a log that nobody works off."""
    seed = 30
    fleet, proxy = make(seed, pods=2)
    ledger = Ledger()
    # The dead pod's own application is held up, so that it is killed between accepting and delivering.
    ledger.burst([_smtp(fleet, 0)], range(20), clients=4, recipients=("alice@example.com", BOB))
    fleet.pods[0].kill()
    deadline = time.monotonic() + 180  # noticed at a scan, unchanged for the hold's TTL, taken at the next scan
    users = ("alice@example.com", BOB)
    expected = sum(outcome == "ok" for outcome in ledger.outcome.values())
    assert expected > 0
    while time.monotonic() < deadline and any(len(_stored(fleet, 1, user)) < expected for user in users):
        time.sleep(0.5)
    for user in users:
        _check(ledger, _stored(fleet, 1, user), seed, dict(proxy.counts))


@pytest.mark.case(30)
def test_a_pod_cut_off_from_the_store_and_flapping_never_reuses_a_uid(make: MakeFleet):
    """A client would show one message's text under another one's subject."""
    seed = 31
    fleet, proxy = make(seed, pods=2)
    ledger = Ledger()
    stop = threading.Event()

    def flap() -> None:
        while not stop.is_set():
            proxy.faults = Faults(cut=True)
            stop.wait(0.4)
            proxy.faults = Faults()
            stop.wait(0.4)

    flapping = threading.Thread(target=flap)
    flapping.start()
    seen: dict[int, bytes] = {}

    def watch() -> None:
        with imaplib.IMAP4_SSL("127.0.0.1", fleet.pods[1].ports[ListenerName.IMAPS], ssl_context=fleet.tls_context()) as imap:
            imap.login(BOB, PASSWORD)
            while not stop.is_set():
                imap.select("INBOX", readonly=True)
                for part in imap.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")[1]:
                    if isinstance(part, tuple):
                        uid = int(part[0].split(b"UID ")[1].split()[0])
                        assert seen.setdefault(uid, part[1]) == part[1], f"UID {uid} was reused"
                stop.wait(0.2)

    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            watch()
        except BaseException as error:
            failures.append(error)

    watcher = threading.Thread(target=guarded)
    watcher.start()
    ledger.burst([_smtp(fleet, 0), _smtp(fleet, 1)], range(80), clients=6)
    stop.set()
    flapping.join()
    watcher.join()
    proxy.faults = Faults()
    assert not failures, failures
    assert _check(ledger, _stored(fleet, 1), seed, dict(proxy.counts))["ok"] >= 40
    with imaplib.IMAP4_SSL("127.0.0.1", fleet.pods[0].ports[ListenerName.IMAPS], ssl_context=fleet.tls_context()) as imap:
        imap.login(BOB, PASSWORD)
        imap.select("INBOX", readonly=True)
        uids = [int(uid) for uid in imap.uid("SEARCH", "ALL")[1][0].split()]
    assert len(uids) == len(set(uids)) == len(_stored(fleet, 1))
    assert set(seen) <= set(uids)


@pytest.mark.case(33)
@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is made with a tiny tmpfs, which needs root")
def test_a_full_local_disk_is_no_reason_to_lose_or_refuse_mail_for_long(make: MakeFleet, tmp_path: Path):
    """The cache is a convenience: a full one would stop a server that needs no disk."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("tmpfs may not be mounted here")
    try:
        fleet, _ = make(33, data_dir=small)
        ledger = Ledger()
        (small / "filler").write_bytes(b"x" * 200_000)
        ledger.burst([_smtp(fleet)], range(20), size=60_000)
        assert all(reply.startswith(("250 2", "452 4.3.1", "451 4.3.0")) for reply in ledger.replies), ledger.replies
        _check(ledger, _stored(fleet), 33, "disk full")
        (small / "filler").unlink()
        ledger.burst([_smtp(fleet)], range(100, 110), size=60_000)
        assert all(ledger.outcome[f"ledger-{number}"] == "ok" for number in range(100, 110))
        _check(ledger, _stored(fleet), 33, "disk free again")
        fleet.stop()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_without_conditional_writes_the_pod_does_not_become_ready(
    seaweed: Seaweed, storage: StorageConfig, credentials: Credentials, tmp_path: Path
):
    """A store that ignores If-None-Match would lose mail in the first race between two pods."""
    from tests.support.careless_s3 import CarelessS3

    careless = CarelessS3(seaweed.endpoint, 1).start()
    try:
        config = msgspec.structs.replace(storage, endpoint=careless.endpoint)
        fleet = Fleet.create(tmp_path, config, credentials, pods=1)
        pod = fleet.pods[0].start(wait=False)
        assert pod.process is not None
        assert pod.process.wait(60) != 0
        assert "ignores the condition" in pod.log.read_text()
        careless.stop()
    finally:
        fleet.stop()

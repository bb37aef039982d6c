"""The pod's inner HTTP server, and pods waking each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest

from mailpod.adapters.system import SystemEntropy, ThreadOffload
from mailpod.errors import StoreUnavailable
from mailpod.limits import web as limits
from mailpod.web import signing
from mailpod.web.app import Hooks, UsageOf, WebServer
from mailpod.web.health import Health
from mailpod.web.peers import PATH, Notification, Peers

KEY = b"k" * 32


class Time:
    """A clock that the test moves; sleeping takes no time worth mentioning."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.mono = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(min(seconds, 0.01))


class Fleet:
    """One server with what it was told, on a free port."""

    def __init__(self) -> None:
        self.clock = Time()
        self.health = Health(self.clock)
        self.told: list[tuple[str, int]] = []
        self.key: bytes | None = KEY
        self.offload = ThreadOffload(1)
        hooks = Hooks(lambda: self.key, lambda name, seq: self.told.append((name, seq)), lambda: {"generation": "g1"}, self.usage)
        self.server = WebServer(self.health, self.clock, self.offload, hooks, "pod-a")
        self.url = ""

    async def usage(self, address: str) -> UsageOf | None:
        if address == "down@example.com":
            raise StoreUnavailable("gone")
        return UsageOf(10, 2) if address == "alice@example.com" else None


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    from tests.support.seaweed import free_ports

    made = Fleet()
    (port,) = free_ports(1)
    await made.server.start("127.0.0.1", port)
    made.url = f"http://127.0.0.1:{port}"
    yield made
    await made.server.stop()
    made.offload.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def body_of(pod: str = "pod-b", commits: object = (("a/alice", 7),)) -> bytes:
    return msgspec.json.encode({"pod": pod, "commits": commits})


async def test_readyz_says_why_not(fleet, http):
    """Kubernetes needs the status, the person at the keyboard the sentence."""
    async with http.get(fleet.url + "/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["reasons"] == {"start": "the pod is starting"}
    fleet.health.clear("start")
    fleet.health.note("config", "a changed configuration was refused")
    async with http.get(fleet.url + "/readyz") as answer:
        assert answer.status == 200
        assert (await answer.json())["notes"] == {"config": "a changed configuration was refused"}
    fleet.health.block("drain", "the pod is shutting down")
    async with http.get(fleet.url + "/readyz") as answer:
        assert answer.status == 503


async def test_healthz_notices_a_stuck_loop(fleet, http):
    """A pod whose loop hangs must be restarted; one that is merely not ready must not."""
    async with http.get(fleet.url + "/healthz") as answer:
        assert answer.status == 200
    fleet.clock.mono += limits.LOOP_LAG_S_MAX + 1
    async with http.get(fleet.url + "/healthz") as answer:
        assert answer.status == 503


async def test_metrics(fleet, http):
    """Prometheus reads its own format, with our families in it."""
    async with http.get(fleet.url + "/metrics") as answer:
        assert answer.content_type == "text/plain"
        text = await answer.text()
    for family in (
        "mailpod_ready",
        "mailpod_sessions",
        "mailpod_store_seconds",
        "mailpod_config_reloads_total",
        "process_cpu_seconds_total",
    ):
        assert f"# TYPE {family}" in text


async def test_notification_reaches_the_store(fleet, http):
    """A session on this pod sees at once what another pod committed."""
    body = body_of(commits=[["a/alice", 7], ["a/bob", 9]])
    headers = {signing.HEADER: signing.sign(KEY, "POST", PATH, body, fleet.clock.now())}
    async with http.post(fleet.url + PATH, data=body, headers=headers) as answer:
        assert answer.status == 204
    assert fleet.told == [("a/alice", 7), ("a/bob", 9)]


async def test_own_notification_is_dropped(fleet, http):
    """The fleet's one DNS name leads to the sender as well."""
    body = body_of("pod-a")
    headers = {signing.HEADER: signing.sign(KEY, "POST", PATH, body, fleet.clock.now())}
    async with http.post(fleet.url + PATH, data=body, headers=headers) as answer:
        assert answer.status == 204
    assert fleet.told == []


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (lambda body, now: "", "not signed"),
        (lambda body, now: "x:y", "not signed"),
        (lambda body, now: f"{int(now)}:{'0' * 64}", "does not fit"),
        (lambda body, now: f"{int(now)}:é", "does not fit"),
        (lambda body, now: signing.sign(b"other" * 7, "POST", PATH, body, now), "does not fit"),
        (lambda body, now: signing.sign(KEY, "GET", PATH, body, now), "does not fit"),
        (lambda body, now: signing.sign(KEY, "POST", "/internal/status", body, now), "does not fit"),
        (lambda body, now: signing.sign(KEY, "POST", PATH, body + b" ", now), "does not fit"),
        (lambda body, now: signing.sign(KEY, "POST", PATH, body, now - limits.SIGNATURE_AGE_S_MAX - 5), "too far"),
        (lambda body, now: signing.sign(KEY, "POST", PATH, body, now + limits.SIGNATURE_AGE_S_MAX + 5), "too far"),
    ],
)
async def test_unsigned_notification_is_refused(fleet, http, header, why):
    """Nobody outside the fleet may make a pod read the bucket, or learn anything from it."""
    body = body_of()
    async with http.post(fleet.url + PATH, data=body, headers={signing.HEADER: header(body, fleet.clock.now())}) as answer:
        assert answer.status == 403
        assert why in (await answer.json())["error"]
    assert fleet.told == []


@pytest.mark.case(32)
async def test_clocks_an_hour_apart_still_wake_each_other(fleet, http):
    """A wrong clock makes nothing slower."""
    body = body_of()
    for shift in (-3600, 3600):
        headers = {signing.HEADER: signing.sign(KEY, "POST", PATH, body, fleet.clock.now() + shift)}
        async with http.post(fleet.url + PATH, data=body, headers=headers) as answer:
            assert answer.status == 204


async def test_without_a_key_nothing_internal_is_answered(fleet, http):
    """A pod without a fleet key must not take an empty key for one."""
    fleet.key = None
    body = body_of()
    headers = {signing.HEADER: signing.sign(b"", "POST", PATH, body, fleet.clock.now())}
    async with http.post(fleet.url + PATH, data=body, headers=headers) as answer:
        assert answer.status == 403
    async with http.get(fleet.url + "/internal/status") as answer:
        assert answer.status == 403


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"pod":1,"commits":[]}', b'{"pod":"x","commits":[["a"]]}', b"\xff", b"[" * 5000])
async def test_signed_nonsense_is_answered_400(fleet, http, body):
    """A newer or broken pod must not break an older one."""
    headers = {signing.HEADER: signing.sign(KEY, "POST", PATH, body, fleet.clock.now())}
    async with http.post(fleet.url + PATH, data=body, headers=headers) as answer:
        assert answer.status == 400


async def test_huge_body_is_refused(fleet, http):
    """Memory is bounded whoever asks."""
    async with http.post(fleet.url + PATH, data=b"x" * (limits.REQUEST_BYTES_MAX + 1)) as answer:
        assert answer.status == 413


async def test_status(fleet, http):
    """The operator reads the generation in force and usage from any pod."""
    target = "/internal/status?account=alice@example.com&account=nobody@example.com&account=down@example.com"
    headers = {signing.HEADER: signing.sign(KEY, "GET", target, b"", fleet.clock.now())}
    async with http.get(fleet.url + target, headers=headers) as answer:
        assert answer.status == 200
        status = await answer.json()
    assert status["generation"] == "g1"
    assert status["pod"] == "pod-a"
    assert status["accounts"] == {
        "alice@example.com": {"bytes": 10, "messages": 2},
        "nobody@example.com": {"error": "no-such-mailbox"},
        "down@example.com": {"error": "store-unavailable"},
    }
    # The signature covers the question, not only the path.
    async with http.get(fleet.url + "/internal/status?account=bob@example.com", headers=headers) as answer:
        assert answer.status == 403


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_peers_tell_each_other(fleet):
    """From a commit to the other pod, over the wire; only the newest number of each log matters."""
    peers = Peers(fleet.clock, lambda: KEY, "pod-b")
    await peers.configure([fleet.url + "/"], 0)
    for seq in (1, 2, 3):
        peers.committed("a/alice", seq)
    await until(lambda: fleet.told)
    assert fleet.told == [("a/alice", 3)]
    peers.committed("a/alice", 4)
    await until(lambda: len(fleet.told) == 2)
    await peers.close()


async def test_dns_name_leads_to_all(fleet):
    """One name stands for the fleet in a cluster."""
    peers = Peers(fleet.clock, lambda: KEY, "pod-b")
    await peers.configure(["localhost"], int(fleet.url.rsplit(":", 1)[1]))
    await until(lambda: peers._peers)
    peers.committed("a/alice", 1)
    await until(lambda: fleet.told)
    await peers.close()


async def test_dead_peer_costs_bounded_memory_and_backs_off():
    """A pod that is gone must not fill the others' memory, nor be called in a tight loop."""
    from tests.support.seaweed import free_ports

    clock = Time()
    peers = Peers(clock, lambda: KEY, "pod-b")
    await peers.configure([f"http://127.0.0.1:{free_ports(1)[0]}"], 0)
    for number in range(limits.NOTIFY_PENDING_MAX + 100):
        peers.committed(f"a/{number}", 1)
    (peer,) = peers._peers.values()
    assert len(peer.pending) == limits.NOTIFY_PENDING_MAX
    await until(lambda: peer.failures >= 3)
    assert clock.slept[:3] == [0.2, 0.4, 0.8]
    await peers.close()


async def test_no_peers_no_work():
    """One pod alone pays nothing for a commit."""
    peers = Peers(Time(), lambda: KEY, "pod-b")
    await peers.configure([], 0)
    peers.committed("a/alice", 1)
    assert peers._session is None
    await peers.close()


async def test_removed_peer_is_forgotten(fleet):
    """A reload that takes a pod away ends what was meant for it."""
    peers = Peers(fleet.clock, lambda: KEY, "pod-b")
    await peers.configure([fleet.url], 0)
    await peers.configure([], 0)
    peers.committed("a/alice", 1)
    await asyncio.sleep(0.05)
    assert fleet.told == []
    await peers.close()


async def test_heartbeat_measures_lag():
    """An overloaded loop shows in a metric before clients complain."""
    clock = Time()
    health = Health(clock)
    task = asyncio.create_task(health.heartbeat())
    clock.mono = 1000.0
    await until(lambda: len(clock.slept) > 1)
    assert health.alive
    task.cancel()


def test_notification_round_trip():
    """Both ends agree on the body's form."""
    sent = Notification("pod-a", [("a/alice", 1)])
    assert msgspec.json.decode(msgspec.json.encode(sent), type=Notification) == sent


def test_signature_is_unpredictable_without_the_key():
    """Any bit of the key matters."""
    key = SystemEntropy().bytes(32)
    other = bytes([key[0] ^ 1]) + key[1:]
    value = signing.sign(key, "POST", PATH, b"", 0)
    assert signing.fault(key, "POST", PATH, b"", value, 0) == ""
    assert signing.fault(other, "POST", PATH, b"", value, 0) != ""

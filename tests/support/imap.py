"""IMAP sessions without sockets: a wire in memory, pods that share a bucket, clients that speak bytes, and transcripts of both sides.

A transcript is a text file. `C:` lines are what a client sends (CRLF is added), `S:` lines are all that it gets back, in order; `<...>` in
one stands for any text. `C2:`/`S2:` is another connection. Lines that begin with `#` say why. Directives, before the first line:

    @login            connections begin logged in as alice@example.com
    @plain            connections begin without TLS
    @pod 2 b          connection 2 is to pod b (all are to pod a otherwise)
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mailpod.auth.authenticator import Authenticator
from mailpod.auth.verifiers import sha256_verifier
from mailpod.contract import VERSION, Credential, DomainConfig, MailboxConfig, PodConfig, Protocol, StorageConfig
from mailpod.directory.directory import Directory
from mailpod.ports import Clock, Entropy, Offload
from mailpod.sessions.imap.hub import Hub
from mailpod.sessions.imap.session import ImapSession
from mailpod.sessions.services import Services
from mailpod.sessions.wire import Peer, TlsInfo
from mailpod.store.facade import MailStore
from tests.support.clocks import InlineOffload, SeededEntropy
from tests.support.memory_objects import MemoryObjects
from tests.support.stores import make_store

ALICE = "alice@example.com"
BOB = "bob@example.com"
PASSWORD = "correct horse"
TLS = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", ("tls-exporter", b"\x07" * 32))


def directory(quota_bytes: int = 50_000_000, max_message_bytes: int = 20_000_000) -> Directory:
    """Two mailboxes in one domain."""
    config = PodConfig(
        version=VERSION,
        generation="1",
        hostname="mail.example.com",
        domains=(DomainConfig(domain="example.com", max_message_bytes=max_message_bytes),),
        storage=StorageConfig(bucket="mail"),
        listeners=(),
    )
    credential = Credential("", sha256_verifier(b"salt-salt-salt-1", PASSWORD))
    mailboxes = [
        MailboxConfig(address=address, quota_bytes=quota_bytes, protocols=(Protocol.IMAP,), credentials=(credential,))
        for address in (ALICE, BOB)
    ]
    return Directory(config, mailboxes)


class HandClock:
    """`ports.Clock` that stands still until it is moved; `sleep` waits until it was moved far enough."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._start = now
        self._passed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._start + self._passed

    def monotonic(self) -> float:
        return 1000.0 + self._passed

    def advance(self, seconds: float) -> None:
        """Move on; who slept long enough wakes."""
        self._passed += seconds
        due = [sleeper for until, sleeper in self._sleepers if until <= self._passed]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._passed]
        for sleeper in due:
            if not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._passed + seconds, sleeper))
        await sleeper


class MemoryWire:
    """`sessions.wire.Wire` that keeps what was written."""

    def __init__(self, *, tls: TlsInfo | None = TLS) -> None:
        self.protocol = "imaps" if tls else "imap"
        self.session_id = "test"
        self.peer = Peer("192.0.2.7", 40_000)
        self.tls = tls
        self.output = bytearray()
        self.largest_write = 0
        self.closed = False
        self.paused = False
        self.compressed = False
        self.keep = True  # False: count bytes only
        self.written = 0
        self._congested = False
        self._waiters: list[asyncio.Future[None]] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.written += len(data)
            self.largest_write = max(self.largest_write, len(data))
            if self.keep:
                self.output += data

    def writelines(self, chunks: Sequence[bytes]) -> None:
        self.write(b"".join(chunks))

    @property
    def congested(self) -> bool:
        return self._congested

    def congest(self, congested: bool) -> None:
        """Make the client stop reading, or read again."""
        self._congested = congested
        if not congested:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.set_result(None)

    def drained(self) -> Awaitable[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.closed:
            waiter.set_exception(ConnectionResetError())
        elif self._congested:
            self._waiters.append(waiter)
        else:
            waiter.set_result(None)
        return waiter

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    async def start_tls(self) -> TlsInfo:
        await asyncio.sleep(0)
        self.tls = TLS
        return TLS

    def start_compression(self) -> None:
        self.compressed = True

    def close(self) -> None:
        self.closed = True


@dataclass
class Pod:
    """One pod: its services and its hub."""

    services: Services
    hub: Hub = field(init=False)

    def __post_init__(self) -> None:
        self.hub = Hub(self.services)

    @classmethod
    def on(cls, store: MailStore, clock: Clock, entropy: Entropy, offload: Offload, found: Directory | None = None) -> Pod:
        """A pod over a store."""
        return cls(
            Services("mail.example.com", store, found or directory(), Authenticator(clock, entropy, offload), clock, entropy, offload)
        )

    def connect(self, *, tls: TlsInfo | None = TLS) -> Client:
        """A new connection, greeted."""
        return Client(self, MemoryWire(tls=tls))

    async def login(self, address: str = ALICE, *, select: str = "") -> Client:
        """A new connection, logged in, perhaps with a folder open."""
        client = self.connect()
        await client.command(f'LOGIN {address} "{PASSWORD}"')
        if select:
            await client.command(f"SELECT {select}")
        client.take()
        return client


def make_pods(count: int = 2, *, found: Directory | None = None) -> tuple[list[Pod], HandClock]:
    """Pods over one bucket in memory, and the clock that all of them go by."""
    clock = HandClock()
    objects = MemoryObjects(clock)
    pods = [
        Pod.on(make_store(objects, clock, seed=number + 1), clock, SeededEntropy(100 + number), InlineOffload(), found)
        for number in range(count)
    ]
    return pods, clock


class Client:
    """The client's side of one connection."""

    def __init__(self, pod: Pod, wire: MemoryWire) -> None:
        self.wire = wire
        self.clock = pod.services.clock
        self.session = ImapSession(pod.services, pod.hub, wire)
        self.session.begin()
        self._tags = 0

    def send(self, data: bytes, *, pieces: int = 0) -> None:
        """Bytes arrive; `pieces`: so many at a time."""
        if not pieces:
            self.session.data_received(data)
            return
        for start in range(0, len(data), pieces):
            self.session.data_received(data[start : start + pieces])

    def take(self) -> bytes:
        """What was written since the last call."""
        output = bytes(self.wire.output)
        self.wire.output.clear()
        return output

    @property
    def busy(self) -> bool:
        """Whether a command runs and does not wait for the client."""
        return self.session._task is not None and self.session._more is None

    async def settle(self, seconds: float = 10.0) -> None:
        """Until nothing runs, and what was scheduled has happened."""
        deadline = asyncio.get_running_loop().time() + seconds
        quiet = turns = 0
        while quiet < 20:
            await asyncio.sleep(0)
            quiet = 0 if self.busy else quiet + 1
            turns += 1
            if turns > 200 and self.busy and isinstance(self.clock, HandClock):
                self.clock.advance(0.01)  # it may be waiting for time to pass, as after a failed login
            assert asyncio.get_running_loop().time() < deadline, "the session does not come to rest"

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, wait, return the answer."""
        self.send(data)
        await self.settle()
        return self.take()

    async def command(self, text: str | bytes) -> bytes:
        """Send a command with a fresh tag; all that comes back, asserting that it is answered."""
        self._tags += 1
        tag = b"t%d" % self._tags
        answer = await self.raw(tag + b" " + (text.encode() if isinstance(text, str) else text) + b"\r\n")
        assert (b"\r\n" + answer).count(b"\r\n" + tag + b" ") == 1, answer[-500:]
        return answer

    async def ok(self, text: str | bytes) -> bytes:
        """The same, and it must be OK."""
        answer = await self.command(text)
        assert b"t%d OK" % self._tags in answer, answer[-500:]
        return answer

    async def lines(self, text: str | bytes) -> list[bytes]:
        """The untagged lines of a command's answer."""
        return (await self.ok(text)).split(b"\r\n")[:-2]

    async def append(self, message: bytes, folder: str = "INBOX", options: str = "") -> bytes:
        """APPEND with a non-synchronizing literal."""
        return await self.command(b"APPEND %b %b{%d+}\r\n%b" % (folder.encode(), options.encode(), len(message), message))


class Step:
    """One block of a transcript: what is sent on a connection, or what must have come back."""

    def __init__(self, kind: str, connection: str, line_number: int) -> None:
        self.kind = kind
        self.connection = connection
        self.line_number = line_number
        self.lines: list[str] = []


@dataclass
class Transcript:
    """A parsed file."""

    steps: list[Step]
    logged_in: bool
    tls: bool
    pods: dict[str, str]

    @classmethod
    def parse(cls, path: Path) -> Transcript:
        """Read a file."""
        transcript = cls([], False, True, {})
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line or line.startswith("#"):
                continue
            if line.startswith("@"):
                words = line[1:].split()
                transcript.logged_in |= words[0] == "login"
                transcript.tls &= words[0] != "plain"
                if words[0] == "pod":
                    transcript.pods[words[1]] = words[2]
                continue
            match = re.fullmatch(r"([CS])(\d?): ?(.*)", line)
            assert match is not None, f"{path.name}:{number}: {line}"
            kind, connection, text = match[1], match[2] or "1", match[3]
            steps = transcript.steps
            if not steps or (steps[-1].kind, steps[-1].connection) != (kind, connection):
                steps.append(Step(kind, connection, number))
            steps[-1].lines.append(text)
        return transcript


async def play(path: Path, *, pieces: int) -> None:
    """Run a transcript against pods "a" and "b"; fail at the first line that differs. Two seconds pass before each turn of a client."""
    transcript = Transcript.parse(path)
    made, clock = make_pods()
    pods = dict(zip("ab", made, strict=True))
    clients: dict[str, Client] = {}
    begun: set[str] = set()
    for step in transcript.steps:
        client = clients.get(step.connection)
        if client is None:
            pod = pods[transcript.pods.get(step.connection, "a")]
            client = clients[step.connection] = pod.connect(tls=TLS if transcript.tls else None)
            if transcript.logged_in:
                await client.ok(f'LOGIN {ALICE} "{PASSWORD}"')
                client.take()
        if step.kind == "C":
            left = client.take() if step.connection in begun else b""  # a greeting is told with the first answer
            begun.add(step.connection)
            assert not left, f"{path.name}:{step.line_number}: more than was expected came before: {left!r}"
            clock.advance(2.0)
            data = "".join(line + "\r\n" for line in step.lines).encode("utf-8", "surrogateescape")
            client.send(data, pieces=pieces)
            await client.settle()
        else:
            await client.settle()
            _compare(path.name, step, client.take().decode("utf-8", "surrogateescape"))
    for client in clients.values():
        await client.settle()
        assert not client.take(), f"{path.name}: more came at the end"
        client.session.connection_lost()


def _compare(name: str, step: Step, output: str) -> None:
    got = output.split("\r\n")
    assert got[-1] == "", f"{name}:{step.line_number}: the last line has no end: {got[-1]!r}"
    got.pop()
    for index, expected in enumerate(step.lines):
        assert index < len(got), f"{name}:{step.line_number + index}: nothing came for {expected!r}; before it: {got[-3:]}"
        pattern = ".*".join(re.escape(part) for part in expected.split("<...>"))
        assert re.fullmatch(pattern, got[index], re.DOTALL), f"{name}:{step.line_number + index}:\n  want {expected}\n  got  {got[index]}"
    assert len(got) == len(step.lines), f"{name}:{step.line_number}: too much came: {got[len(step.lines) :]}"

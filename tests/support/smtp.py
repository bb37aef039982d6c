"""What SMTP's unit tests need: a store in memory that can be told to fail, a clock that stands still, a wire without sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from mailpod.auth.authenticator import Authenticator
from mailpod.contract import (
    VERSION,
    Credential,
    DomainConfig,
    MailboxConfig,
    MailboxState,
    PodConfig,
    Protocol,
    StorageConfig,
)
from mailpod.directory.directory import Directory
from mailpod.errors import OVER_QUOTA, MailError, Reason, Refused
from mailpod.sessions.services import Services
from mailpod.sessions.smtp import MX, Rules, SmtpSession, SmtpShared
from mailpod.sessions.wire import Peer, TlsInfo
from mailpod.store.types import Appended, NewMessage, TransitMessage, Usage

# "secret" as $sha256$: base64 without padding of the salt, and of SHA-256(salt + password).
PASSWORD = "b3Blbi1zZXNhbWUtMTIz"


class StillClock:
    """A clock that moves only when it is told to, or slept on."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.time = now
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


class CountingEntropy:
    """Different bytes each time, the same in each run."""

    def __init__(self) -> None:
        self.calls = 0

    def bytes(self, count: int) -> bytes:
        self.calls += 1
        return self.calls.to_bytes(8, "big").rjust(count, b"\0")[-count:]

    def uniform(self) -> float:
        return 0.5


async def at_once(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """`ports.Offload` without threads."""
    return function(*args, **kwargs)


class MemoryAccount:
    """As much of `store.facade.Account` as delivery uses."""

    def __init__(self, store: MemoryStore, address: str) -> None:
        self.store = store
        self.address = address
        self.used = 0
        self.folders = {"INBOX": 1, "Receipts": 2}
        self.messages: list[tuple[str, bytes]] = []  # (folder, bytes)
        self.refreshed = 0

    @property
    def view(self) -> Any:
        def folder(name: str) -> Any:
            number = self.folders.get(name)
            return SimpleNamespace(id=number, name=name) if number is not None else None

        return SimpleNamespace(
            usage=Usage(self.used, len(self.messages)), folder=folder, folders=lambda: [folder(name) for name in self.folders]
        )

    async def refresh(self, max_age_s: float = 0.0) -> Any:
        self.refreshed += 1
        if self.store.on_refresh is not None:
            self.store.on_refresh(self)
        return self.view

    async def append(self, folder_id: int, messages: Sequence[NewMessage], *, quota_bytes: int | None = None) -> Appended:
        await self.store.commit()
        if quota_bytes is not None and self.used >= quota_bytes:
            raise Refused(OVER_QUOTA)
        name = next((name for name, number in self.folders.items() if number == folder_id), None)
        if name is None:
            raise Refused(Reason("no-such-folder", 550, "5.2.0", "NO", "TRYCREATE", "", "No such folder"))
        for message in messages:
            raw = message.raw if isinstance(message.raw, bytes) else b"".join(message.raw)
            self.messages.append((name, raw))
            self.used += len(raw)
        return Appended(1, (len(self.messages),), self.store.commits)


class MemoryStore:
    """As much of `store.facade.MailStore` as delivery uses. `failure` is raised by commits, `open_failure` by `open`."""

    def __init__(self) -> None:
        self.accounts: dict[str, MemoryAccount] = {}
        self.transit: list[TransitMessage] = []
        self.commits = 0
        self.failure: MailError | None = None
        self.open_failure: MailError | None = None
        self.gate: asyncio.Event | None = None  # commits wait for it
        self.on_refresh: Callable[[MemoryAccount], None] | None = None

    async def open(self, address: str) -> Any:
        if self.open_failure is not None:
            raise self.open_failure
        return self.account(address)

    def account(self, address: str) -> MemoryAccount:
        if address not in self.accounts:
            self.accounts[address] = MemoryAccount(self, address)
        return self.accounts[address]

    async def commit(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.commits += 1

    async def accept(self, message: TransitMessage) -> str:
        await self.commit()
        self.transit.append(message)
        return f"transit-{self.commits}"

    def transit_idle(self) -> bool:
        return True

    async def drain(self) -> None:
        return


def mailbox(address: str, **changes: Any) -> MailboxConfig:
    fields: dict[str, Any] = {
        "address": address,
        "quota_bytes": 10_000_000,
        "protocols": (Protocol.IMAP, Protocol.SUBMISSION),
        "credentials": (Credential("", verifier(PASSWORD)),),
    }
    return MailboxConfig(**(fields | changes))


def verifier(password: str) -> str:
    """The verifier of a generated password (`contract.Credential`)."""
    import base64
    import hashlib

    salt = b"0123456789abcdef"
    digest = hashlib.sha256(salt + password.encode()).digest()
    parts = (base64.b64encode(part).decode().rstrip("=") for part in (salt, digest))
    return "$sha256$" + "$".join(parts)


def example_directory(**domain_changes: Any) -> Directory:
    """example.com with Alice (aliases, small), Bob, a suspended Carol, roles; example.org with a catch-all."""
    fields: dict[str, Any] = {
        "domain": "example.com",
        "alias_domains": ("example.net",),
        "role_mailbox": "bob@example.com",
        "role_addresses": ("postmaster", "abuse"),
        "max_message_bytes": 1_000_000,
    }
    domains = (
        DomainConfig(**(fields | domain_changes)),
        DomainConfig(domain="example.org", catch_all="dave@example.org", max_message_bytes=200_000),
    )
    config = PodConfig(
        version=VERSION, generation="1", hostname="mx.example.com", domains=domains, storage=StorageConfig(bucket="b"), listeners=()
    )
    return Directory(
        config,
        [
            mailbox("alice@example.com", aliases=("al@example.com",)),
            mailbox("bob@example.com"),
            mailbox("carol@example.com", state=MailboxState.SUSPENDED),
            mailbox("dave@example.org"),
            *(mailbox(f"user{number}@example.com") for number in range(20)),
        ],
    )


def example_services(directory: Directory | None = None) -> Services:
    clock, entropy = StillClock(), CountingEntropy()
    return Services(
        hostname="mx.example.com",
        store=MemoryStore(),
        directory=directory or example_directory(),
        authenticator=Authenticator(clock, entropy, at_once),
        clock=clock,
        entropy=entropy,
        offload=at_once,
    )


class MemoryWire:
    """`sessions.wire.Wire` that keeps what is written."""

    def __init__(self, protocol: str = "smtp", peer: str = "192.0.2.1") -> None:
        self.protocol = protocol
        self.session_id = "5e55"
        self.peer = Peer(peer, 50000)
        self.tls: TlsInfo | None = None
        self.sent = b""
        self.writes = 0
        self.closed = False
        self.reading = True
        self.congested = False
        self.room: asyncio.Event = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data
        self.writes += 1

    def writelines(self, chunks: Sequence[bytes]) -> None:
        self.write(b"".join(chunks))

    async def drained(self) -> None:
        await self.room.wait()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    async def start_tls(self) -> TlsInfo:
        await asyncio.sleep(0)
        self.tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", ("tls-server-end-point", b"\x01" * 32))
        return self.tls

    def start_compression(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.closed = True


class Dialogue:
    """A session on a `MemoryWire`, talked to line by line."""

    def __init__(self, services: Services | None = None, rules: Rules = MX, *, tls: bool = False, shared: SmtpShared | None = None) -> None:
        self.services = services or example_services()
        self.shared = shared or SmtpShared(self.services)
        self.wire = MemoryWire(rules.protocol)
        if tls:
            self.wire.tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", None)
        self.session = SmtpSession(self.wire, self.shared, rules, starttls=not rules.implicit_tls)
        self.session.begin()

    @property
    def store(self) -> Any:
        return self.services.store

    @property
    def clock(self) -> Any:
        return self.services.clock

    def read(self) -> str:
        """What was sent since the last `read`."""
        text, self.wire.sent = self.wire.sent.decode("ascii"), b""
        return text

    async def settle(self) -> None:
        """Let everything run that can."""
        for _ in range(60):
            await asyncio.sleep(0)

    async def send(self, data: str | bytes, step: int = 0) -> str:
        """Send bytes (in pieces of `step`), and return what came back."""
        raw = data.encode() if isinstance(data, str) else data
        for at in range(0, len(raw), step or len(raw) or 1):
            if not self.wire.closed:
                self.session.data_received(raw[at : at + step] if step else raw)
                if step:
                    await asyncio.sleep(0)
        await self.settle()
        return self.read()

    async def lines(self, *lines: str) -> list[str]:
        """Send commands one by one; the last line of each answer."""
        return [(await self.send(line + "\r\n")).rstrip("\r\n").rpartition("\r\n")[2] for line in lines]


def code_of(reply: str) -> str:
    """Code and enhanced code of a reply: "550 5.1.1"."""
    match = re.match(r"(\d{3})[ -](\d\.\d\.\d{1,2})?", reply)
    assert match, reply
    return match[0].strip().replace("-", " ")

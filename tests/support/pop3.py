"""A pod's POP3 half with one mailbox in memory, which can be made to fail at will; and transcripts to play against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from mailpod.auth import verifiers
from mailpod.auth.authenticator import Authenticator
from mailpod.auth.scram import scram_keys
from mailpod.contract import Credential, MailboxConfig, MailboxState, PodConfig, Protocol, StorageConfig
from mailpod.directory.directory import Directory
from mailpod.errors import MailError, Reason
from mailpod.sessions.pop3.session import Pop3Session, Pop3Shared
from mailpod.sessions.services import Services
from mailpod.sessions.wire import Peer, TlsInfo
from mailpod.store.types import Expunged

PASSWORD = "generated password"
EXPUNGED = Reason("expunged", 550, "5.1.1", "NO", "EXPUNGEISSUED", "SYS/PERM", "The message is gone")
TLS = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", ("tls-server-end-point", b"hash"))


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


class Entropy:
    def bytes(self, count: int) -> bytes:
        return b"\x01" * count

    def uniform(self) -> float:
        return 0.5


async def offload(function, /, *args, **kwargs):
    return function(*args, **kwargs)


class Folder:
    """An immutable view of INBOX; `faults` makes reads of a row fail from an offset on."""

    id, name, uidvalidity, uidnext, highestmodseq, special_use = 1, "INBOX", 77, 1000, 1, ""

    def __init__(self, messages: dict[int, bytes], faults: dict[int, tuple[int, MailError]]) -> None:
        self._messages, self._faults = list(messages.values()), faults
        self._uids = np.array(list(messages), dtype=np.uint32)
        self.count = len(messages)
        self.reads: list[tuple[int, int, int | None]] = []
        self.many: list[list[int]] = []

    def uids(self):
        return self._uids

    def sizes(self):
        return np.array([len(m) for m in self._messages], dtype=np.uint32)

    async def read(self, row: int, start: int = 0, length: int | None = None) -> bytes:
        self.reads.append((row, start, length))
        await asyncio.sleep(0)
        fault = self._faults.get(row)
        if fault is not None and start >= fault[0]:
            raise fault[1]
        return self._messages[row][start : None if length is None else start + length]

    async def read_many(self, rows) -> AsyncIterator[tuple[int, bytes]]:
        self.many.append(rows.tolist())
        for row in rows.tolist():
            await asyncio.sleep(0)
            if row in self._faults:
                continue
            yield row, self._messages[row]


class Account:
    def __init__(self, messages: Sequence[bytes]) -> None:
        self.messages = dict(enumerate(messages, 11))  # by UID
        self.faults: dict[int, tuple[int, MailError]] = {}
        self.expunges: list[list[int]] = []
        self.expunge_fault: MailError | None = None
        self.folder: Folder | None = None

    async def refresh(self, max_age_s: float = 0.0):
        await asyncio.sleep(0)
        self.folder = Folder(self.messages, self.faults)
        return SimpleNamespace(folder=lambda name: self.folder if name == "INBOX" else None)

    async def expunge(self, folder_id: int, uids=None, *, deleted_only: bool = True) -> Expunged:
        assert folder_id == 1
        assert not deleted_only
        self.expunges.append(uids.tolist())
        await asyncio.sleep(0)
        if self.expunge_fault is not None:
            raise self.expunge_fault
        gone = [uid for uid in uids.tolist() if uid in self.messages]
        self.messages = {uid: m for uid, m in self.messages.items() if uid not in gone}
        return Expunged(np.array(gone, dtype=np.uint32), 5)


class Wire:
    """A connection in memory."""

    protocol, session_id, peer = "pop3", "s1", Peer("192.0.2.1", 1234)

    def __init__(self, tls: TlsInfo | None = TLS) -> None:
        self.tls = tls
        self.out = bytearray()
        self.closed = self.slow = self.paused = False
        self.upgrade: Callable[[], None] | None = None
        self.room = asyncio.Event()

    def write(self, data) -> None:
        if not self.closed:
            self.out += data

    def writelines(self, chunks) -> None:
        for chunk in chunks:
            self.write(chunk)

    @property
    def congested(self) -> bool:
        return self.slow

    async def drained(self) -> None:
        while self.slow:
            self.room.clear()
            await self.room.wait()
        if self.closed:
            raise ConnectionResetError

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    async def start_tls(self) -> TlsInfo:
        await asyncio.sleep(0)
        if self.upgrade is not None:
            self.upgrade()
        self.tls = TLS
        return TLS

    def start_compression(self) -> None:
        raise AssertionError("POP3 has none")

    def close(self) -> None:
        self.closed = True


OWN = Credential("", verifiers.sha256_verifier(b"salt", PASSWORD), scram_keys(b"salt" * 4, 4096, PASSWORD))


class Bench:
    """A pod with alice's mailbox; `connect` opens sessions on it."""

    def __init__(self, *messages: bytes, store: Any = None) -> None:
        self.account = Account(messages)
        self.clock = Clock()
        config = PodConfig(version=1, generation="1", hostname="mx", domains=(), storage=StorageConfig(bucket="b"), listeners=())
        alice = MailboxConfig(address="alice@example.com", quota_bytes=1, protocols=(Protocol.POP3,), credentials=(OWN,))
        locked = MailboxConfig(
            address="bob@example.com", quota_bytes=1, protocols=(Protocol.POP3,), credentials=(OWN,), state=MailboxState.LOCKED
        )
        imap = MailboxConfig(address="imap@example.com", quota_bytes=1, protocols=(Protocol.IMAP,), credentials=(OWN,))
        self.store_fault: MailError | None = None
        store = store or SimpleNamespace(open=self.open)
        authenticator = Authenticator(self.clock, Entropy(), offload)
        self.services = Services(
            "mx",
            store,
            Directory(config, [alice, locked, imap]),
            authenticator,
            self.clock,
            Entropy(),
            offload,
        )
        self.shared = Pop3Shared()

    async def open(self, address: str) -> Account:
        if self.store_fault is not None:
            raise self.store_fault
        assert address == "alice@example.com"
        return self.account

    def connect(self, tls: TlsInfo | None = TLS) -> Client:
        return Client(self, tls)

    async def login(self) -> Client:
        client = self.connect()
        await client.say("USER alice@example.com\r\nPASS " + PASSWORD + "\r\n")
        client.take()
        return client


class Client:
    def __init__(self, bench: Bench, tls: TlsInfo | None) -> None:
        self.wire = Wire(tls)
        self.session = Pop3Session(self.wire, bench.services, bench.shared)
        self.session.begin()

    async def settle(self) -> None:
        for _ in range(200):
            await asyncio.sleep(0)
            if self.session._task is None:
                return
            if self.wire.slow:
                return

    async def say(self, text: str | bytes) -> bytes:
        before = len(self.wire.out)
        self.session.data_received(text.encode() if isinstance(text, str) else text)
        await self.settle()
        return bytes(self.wire.out[before:])

    def take(self) -> bytes:
        out = bytes(self.wire.out)
        self.wire.out.clear()
        return out


async def play(bench: Bench, transcript: str, tls: TlsInfo | None = TLS, bytewise: bool = False) -> Client:
    """Play `C:` lines and compare what comes with the `S:` lines (`…` at the end: begins so; `S: *` any one line)."""
    client = bench.connect(tls)
    lines = [line.strip() for line in transcript.strip().splitlines()]
    received: list[str] = client.take().decode().split("\r\n")[:-1]
    for line in lines:
        kind, _, text = line.partition(": ") if ": " in line else (line[0], "", "")
        if kind == "C":
            data = text.encode() + b"\r\n"
            for chunk in [bytes([b]) for b in data] if bytewise else [data]:
                client.session.data_received(chunk)
            await client.settle()
            received += client.take().decode().split("\r\n")[:-1]
        else:
            assert received, f"nothing came for {line}"
            got = received.pop(0)
            assert got == text or (text.endswith("…") and got.startswith(text[:-1])), f"expected {text!r}, got {got!r}"
    assert received == []
    return client

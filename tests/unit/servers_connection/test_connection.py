"""One connection over real loopback sockets, on both event loops: TLS, PROXY, compression, flow control, timeouts, caps."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import zlib
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from mailpod.adapters.system import SystemClock, SystemEntropy
from mailpod.contract import ListenerName
from mailpod.errors import ACCOUNT_CLOSED, Reason
from mailpod.limits import connection as limits
from mailpod.servers.connection import connection_factory
from mailpod.servers.listener import Listeners, raise_file_limit
from mailpod.servers.proxy import TrustedPeers
from mailpod.servers.registry import Connections, Endpoint
from mailpod.servers.tls import KeyPair, TlsProvider, end_point_hash, self_made
from mailpod.sessions.wire import Wire

NOW = 1_790_000_000.0
SELF_MADE = self_made(["localhost", "127.0.0.1"], NOW)


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=SELF_MADE.ca.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Toy:
    """A line protocol with every trick of the wire: echo, STARTTLS, COMPRESS, BIG n, HOLD, QUIT, BOOM."""

    idle_timeout_s = 1000.0
    account_address = "alice@example.com"

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.buffer = b""
        self.events: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.received = 0
        self.discard = False

    def begin(self) -> None:
        self.wire.write(b"HELLO %s\r\n" % self.wire.peer.address.encode())

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.discard:
            return
        self.buffer += data
        while b"\n" in self.buffer and not self.discard:
            line, self.buffer = self.buffer.split(b"\n", 1)
            self.line(line.rstrip(b"\r"))

    def line(self, line: bytes) -> None:
        if line == b"STARTTLS":
            self.wire.write(b"GO\r\n")
            self.discard, self.buffer = True, b""
            self.run(self.start_tls())
        elif line == b"COMPRESS":
            self.wire.write(b"GO\r\n")
            self.wire.start_compression()
        elif line.startswith(b"BIG "):
            self.run(self.big(int(line[4:])))
        elif line == b"HOLD":
            self.wire.pause_reading()
            self.run(self.hold())
        elif line == b"BOOM":
            raise RuntimeError("a session's bug")
        elif line == b"QUIT":
            self.wire.write(b"BYE\r\n")
            self.wire.close()
        else:
            self.wire.writelines([b"<", line, b">\r\n"])

    def run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def start_tls(self) -> None:
        try:
            info = await self.wire.start_tls()
        except ConnectionResetError:
            self.events.append("tls-failed")
            return
        self.discard, self.buffer = False, b""
        self.events.append(info.version)

    async def big(self, size: int) -> None:
        piece = bytes(range(256)) * 256
        try:
            for _ in range(size // len(piece)):
                if self.wire.congested:
                    self.events.append("congested")
                    await self.wire.drained()
                self.wire.write(piece)
        except ConnectionResetError:
            self.events.append("reset")

    async def hold(self) -> None:
        await asyncio.sleep(0.05)
        self.wire.write(b"HELD\r\n")
        self.wire.resume_reading()

    def eof_received(self) -> None:
        self.events.append("eof")
        self.wire.write(b"EOF\r\n")
        self.wire.close()

    def timed_out(self) -> None:
        self.events.append("timed-out")
        self.wire.write(b"TIMEOUT\r\n")
        self.wire.close()

    def shut_down(self) -> None:
        self.wire.write(b"SHUTDOWN\r\n")
        self.wire.close()

    def close_for(self, reason: Reason) -> None:
        self.wire.write(reason.pop3_code.encode() + b"\r\n")
        self.wire.close()

    def connection_lost(self) -> None:
        self.events.append("lost")


class Ticks(SystemClock):
    """Sweeps come when the test says so; every other sleep is real."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        if seconds == limits.SWEEP_S:
            await self.turns.acquire()
        else:
            await super().sleep(seconds)


class Bench:
    def __init__(self) -> None:
        self.clock = Ticks()
        self.provider = TlsProvider(SELF_MADE.pair)
        self.registry = Connections(self.clock, SystemEntropy(), self.provider)
        self.listeners = Listeners()
        self.sessions: list[Toy] = []
        self.port = self.tls_port = 0
        self.clients: list[asyncio.StreamWriter] = []

    async def connect(self, port: int, **options) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000_000, **options)
        self.clients.append(writer)
        return reader, writer

    async def open(self) -> None:
        def make(wire: Wire) -> Toy:
            self.sessions.append(Toy(wire))
            return self.sessions[-1]

        self.registry.start()
        for name, implicit in ((ListenerName.IMAP, False), (ListenerName.IMAPS, True)):
            endpoint = Endpoint(name.value.lower(), implicit, make, b"BUSY\r\n")
            port = await self.listeners.open(name, 0, connection_factory(self.registry, endpoint), "127.0.0.1")
            self.port, self.tls_port = (self.port, port) if implicit else (port, self.tls_port)

    async def close(self) -> None:
        self.listeners.stop_accepting()
        await self.registry.stop()
        for writer in self.clients:
            writer.transport.abort()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
        await asyncio.sleep(0.01)
        assert len(self.registry) == 0
        assert not self.registry._by_address

    async def plain(self, greet: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect(self.port)
        if greet:
            assert await reader.readline() == b"HELLO 127.0.0.1\r\n"
        return reader, writer

    async def tls(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect(self.tls_port, ssl=context or client_context(), server_hostname="localhost")
        assert await reader.readline() == b"HELLO 127.0.0.1\r\n"
        return reader, writer

    async def tick(self, seconds: float) -> None:
        for _ in range(int(seconds / limits.SWEEP_S) + 2):
            self.clock.turns.release()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)


Scenario = Callable[[Bench], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    """Runs a scenario with a server on the one loop or the other."""

    async def body(scenario: Scenario) -> None:
        bench = Bench()
        await bench.open()
        try:
            async with asyncio.timeout(20):
                await scenario(bench)
        finally:
            await bench.close()

    def runner(scenario: Scenario) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(body(scenario))

    return runner


async def ask(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> bytes:
    stream[1].write(data)
    return await stream[0].readline()


def test_plain_and_tls_and_pipelining(run) -> None:
    """The plainest use, byte by byte and many lines at once."""

    async def scenario(bench: Bench) -> None:
        for stream in (await bench.plain(), await bench.tls()):
            for byte in b"hel":
                stream[1].write(bytes([byte]))
                await asyncio.sleep(0.001)
            assert await ask(stream, b"lo\r\n") == b"<hello>\r\n"
            stream[1].write(b"".join(b"%d\r\n" % i for i in range(20_000)))
            for i in range(20_000):
                assert await stream[0].readline() == b"<%d>\r\n" % i
            assert await ask(stream, b"QUIT\r\n") == b"BYE\r\n"
            assert await stream[0].read() == b""
        assert bench.sessions[0].wire.tls is None
        info = bench.sessions[1].wire.tls
        assert info is not None
        assert info.version == "TLSv1.3"
        assert bench.sessions[0].events == ["lost"]

    run(scenario)


@pytest.mark.case(3)
def test_plaintext_behind_starttls_is_discarded(run) -> None:
    """An attacker's command injected before the handshake must not run inside the victim's TLS."""

    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.plain()
        writer.write(b"STARTTLS\r\nEVIL\r\nQUIT\r\n")
        assert await reader.readline() == b"GO\r\n"
        await writer.start_tls(client_context(), server_hostname="localhost")
        assert await ask((reader, writer), b"good\r\n") == b"<good>\r\n"
        assert bench.sessions[0].events == ["TLSv1.3"]
        writer.close()

    run(scenario)


@pytest.mark.case(4)
def test_plaintext_instead_of_a_handshake_ends_the_connection(run) -> None:
    """After the OK there is TLS or nothing: no fallback to plaintext."""

    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.plain()
        writer.write(b"STARTTLS\r\n")
        assert await reader.readline() == b"GO\r\n"
        writer.write(b"EVIL\r\n" * 10)
        assert b"EVIL" not in await reader.read()
        await asyncio.sleep(0.01)
        assert "tls-failed" in bench.sessions[0].events
        assert bench.sessions[0].events[-1] == "lost" or "lost" in bench.sessions[0].events
        writer.close()

    run(scenario)


def test_first_command_with_the_last_handshake_message(run) -> None:
    """A fast client sends its first command in the packet of its Finished: it must reach the session after it woke up."""

    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.plain()
        writer.write(b"STARTTLS\r\n")
        await reader.readline()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        tls.write(b"first\r\n")
        writer.write(outgoing.read())  # Finished and the command together
        text = b""
        while not text.endswith(b"\n"):
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                text += tls.read(1000)
        assert text == b"<first>\r\n"
        writer.close()

    run(scenario)


@pytest.mark.case(23)
def test_old_tls_is_refused(run) -> None:
    """TLS 1.1 gets an alert, not a session; TLS 1.2 works unless 1.3 is demanded."""

    async def scenario(bench: Bench) -> None:
        old = client_context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await bench.tls(old)
        twelve = client_context()
        twelve.maximum_version = ssl.TLSVersion.TLSv1_2
        (await bench.tls(twelve))[1].close()
        info = bench.sessions[-1].wire.tls
        assert info is not None
        assert (info.version, info.channel_binding) == ("TLSv1.2", None)  # RFC 7677 §4: nothing safe to bind to
        assert bench.provider.replace(SELF_MADE.pair, "TLSv1.3")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await bench.tls(twelve)

    run(scenario)


@pytest.mark.case(23)
def test_certificate_reload_drops_no_session(run) -> None:
    """An old session goes on, a new one sees the new certificate, a bad pair changes nothing, the binding follows."""

    async def scenario(bench: Bench) -> None:
        first = await bench.tls()
        other = self_made(["localhost"], NOW)
        with pytest.raises(ValueError, match="not usable"):
            bench.provider.replace(KeyPair(other.pair.chain, SELF_MADE.pair.key))
        with pytest.raises(ValueError, match="not usable"):
            bench.provider.replace(KeyPair(b"rubbish", b""))
        with pytest.raises(ValueError, match="none of"):
            bench.provider.replace(other.pair, "TLSv1.0")
        assert not bench.provider.replace(SELF_MADE.pair)
        (await bench.tls())[1].close()
        assert bench.provider.replace(other.pair)
        with pytest.raises(ssl.SSLCertVerificationError):
            await bench.tls()
        trusting = ssl.create_default_context(cadata=other.ca.decode())
        second = await bench.tls(trusting)
        assert await ask(first, b"still\r\n") == b"<still>\r\n"
        assert await ask(second, b"new\r\n") == b"<new>\r\n"
        from cryptography import x509

        der = second[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
        info = bench.sessions[-1].wire.tls
        assert info is not None
        assert info.channel_binding == ("tls-server-end-point", end_point_hash(x509.load_der_x509_certificate(der)))
        assert info.channel_binding != bench.sessions[0].wire.tls.channel_binding  # type: ignore[union-attr]
        for stream in (first, second):
            stream[1].close()

    run(scenario)


def test_bulk_with_a_slow_reader_is_bounded(run) -> None:
    """A client that reads slowly makes the session wait instead of filling memory, and gets every byte."""

    async def scenario(bench: Bench) -> None:
        size = 20_000_000 // 65536 * 65536
        for connect in (bench.plain, bench.tls):
            reader, writer = await connect()
            writer.write(b"BIG %d\r\n" % size)
            await asyncio.sleep(0.1)
            data = await reader.readexactly(size)
            assert data == bytes(range(256)) * (size // 256)
            assert "congested" in bench.sessions[-1].events
            writer.close()

    run(scenario)


def test_a_producer_that_waits_learns_of_the_loss(run) -> None:
    """A client that disappears during a download must not leave a task waiting for ever."""

    async def scenario(bench: Bench) -> None:
        _, writer = await bench.plain()
        writer.write(b"BIG 100000000\r\n")
        await asyncio.sleep(0.1)
        assert bench.sessions[0].wire.congested
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert bench.sessions[0].events[-2:] in (["reset", "lost"], ["lost", "reset"])
        assert not bench.sessions[0].tasks

    run(scenario)


def test_paused_reading_loses_and_reorders_nothing(run) -> None:
    """While a command runs, what was pipelined behind it waits."""

    async def scenario(bench: Bench) -> None:
        for connect in (bench.plain, bench.tls):
            reader, writer = await connect()
            writer.write(b"HOLD\r\n")
            await asyncio.sleep(0.01)
            writer.write(b"a\r\n")
            await asyncio.sleep(0.01)
            writer.write(b"b\r\n" + b"c" * 300_000 + b"\r\nQUIT\r\n")
            assert await reader.readline() == b"HELD\r\n"
            assert await reader.readuntil(b"BYE\r\n") == b"<a>\r\n<b>\r\n<" + b"c" * 300_000 + b">\r\nBYE\r\n"
            writer.close()

    run(scenario)


def test_half_closed_clients_get_their_answers(run) -> None:
    """`printf … | nc` closes its half at once; the answers still come."""

    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.plain()
        writer.write(b"a\r\nb\r\n")
        writer.write_eof()
        assert await reader.read() == b"<a>\r\n<b>\r\nEOF\r\n"
        writer.close()

    run(scenario)


def test_tls_clients_may_close_their_half(run) -> None:
    """A client that says goodbye in TLS right behind its command (RFC 8446 §6.1) still gets the answer."""

    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.connect(bench.tls_port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        tls.write(b"a\r\n")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        writer.write(outgoing.read())
        incoming.write(await reader.read())
        assert bench.sessions[0].events == ["eof"] or bench.sessions[0].events == ["eof", "lost"]
        assert incoming.pending > 50  # tickets, the answer, the goodbye: encrypted
        writer.close()

    run(scenario)


def test_half_close_through_a_plain_reader(run) -> None:
    """The same with compression in between: what was sent before the end is answered before the end."""

    async def scenario(bench: Bench) -> None:
        reader, writer = await bench.plain()
        assert await ask((reader, writer), b"COMPRESS\r\n") == b"GO\r\n"
        writer.write(deflated(b"a\r\n" * 100_000, zlib.compressobj(wbits=-15)))
        writer.write_eof()
        text = zlib.decompressobj(-15).decompress(await reader.read())
        assert text == b"<a>\r\n" * 100_000 + b"EOF\r\n"
        writer.close()

    run(scenario)


def deflated(lines: bytes, state: zlib._Compress) -> bytes:
    return state.compress(lines) + state.flush(zlib.Z_SYNC_FLUSH)


def test_compression_both_ways(run) -> None:
    """RFC 4978, inside TLS too, with commands pipelined behind each other and cut anywhere."""

    async def scenario(bench: Bench) -> None:
        for connect in (bench.plain, bench.tls):
            stream = await connect()
            assert await ask(stream, b"COMPRESS\r\n") == b"GO\r\n"
            state, inflate = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)
            data = deflated(b"one\r\ntwo\r\n", state) + deflated(b"x" * 500_000 + b"\r\n", state)
            for start in range(0, len(data), 7):
                stream[1].write(data[start : start + 7])
                await asyncio.sleep(0)
            expected, text = b"<one>\r\n<two>\r\n<" + b"x" * 500_000 + b">\r\n", b""
            while len(text) < len(expected):
                text += inflate.decompress(await stream[0].read(65536))
            assert text == expected
            stream[1].close()

    run(scenario)


@pytest.mark.case(14)
def test_compression_bomb_is_capped(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred kilobytes that unfold to hundreds of megabytes end the connection; others are served meanwhile."""
    monkeypatch.setattr(limits, "INFLATE_FREE_BYTES", 4_000_000)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = bomb.compress(b"\0" * 200_000_000) + bomb.flush(zlib.Z_SYNC_FLUSH)

    async def scenario(bench: Bench) -> None:
        stream, other = await bench.plain(), await bench.plain()
        assert await ask(stream, b"COMPRESS\r\n") == b"GO\r\n"
        session = bench.sessions[0]
        session.discard = True
        stream[1].write(data)
        pings = 0
        while session.events != ["lost"]:
            assert await ask(other, b"ping\r\n") == b"<ping>\r\n"
            pings += 1
        assert session.received < 4_000_000 + limits.INFLATE_RATIO_MAX * len(data) < 200_000_000
        assert pings >= session.received // limits.TURN_BYTES_MAX // 4  # they had their turns
        for writer in (stream[1], other[1]):
            writer.close()

    run(scenario)


def test_broken_deflate_ends_the_connection(run) -> None:
    """Rubbish instead of DEFLATE closes this connection and nothing else."""

    async def scenario(bench: Bench) -> None:
        stream = await bench.plain()
        assert await ask(stream, b"COMPRESS\r\n") == b"GO\r\n"
        stream[1].write(b"\xff" * 100)
        assert await stream[0].read() == b""
        stream[1].close()

    run(scenario)


def test_a_sessions_bug_ends_only_its_connection(run) -> None:
    """No traceback to the client, no other session harmed."""

    async def scenario(bench: Bench) -> None:
        stream, other = await bench.plain(), await bench.plain()
        assert await ask(stream, b"BOOM\r\n") == b""
        assert await ask(other, b"alive\r\n") == b"<alive>\r\n"
        other[1].close()
        stream[1].close()

    run(scenario)


def test_proxy_headers(run) -> None:
    """A balancer tells the client's address, v1 and v2, in front of TLS too, cut anywhere; without a header it is not served."""

    async def scenario(bench: Bench) -> None:
        bench.registry.trusted = TrustedPeers(["127.0.0.0/8"])
        v1 = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 143\r\n"
        v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", 12) + bytes([192, 0, 2, 10, 192, 0, 2, 1]) + struct.pack("!HH", 1, 2)
        for header, address in ((v1, b"192.0.2.9"), (v2, b"192.0.2.10")):
            reader, writer = await bench.plain(greet=False)
            for byte in header[:-1]:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            writer.write(header[-1:] + b"cmd\r\n")
            assert await reader.readline() == b"HELLO " + address + b"\r\n"
            assert await reader.readline() == b"<cmd>\r\n"
            writer.close()
        reader, writer = await bench.connect(bench.tls_port)
        writer.write(v1)
        await writer.start_tls(client_context(), server_hostname="localhost")
        assert await reader.readline() == b"HELLO 192.0.2.9\r\n"
        writer.close()
        reader, writer = await bench.plain(greet=False)
        writer.write(b"a LOGIN alice secret\r\n")
        assert await reader.read() == b""
        writer.close()

    run(scenario)


@pytest.mark.case(15)
def test_timeouts(run) -> None:
    """Silence costs a client its connection: before the PROXY header, in the handshake, and in the session, which says so."""

    async def scenario(bench: Bench) -> None:
        idle = await bench.plain()
        busy = await bench.plain()
        handshake = await bench.connect(bench.tls_port)
        bench.registry.trusted = TrustedPeers(["127.0.0.0/8"])
        proxied = await bench.plain(greet=False)
        await asyncio.sleep(0.02)
        for session in bench.sessions:
            session.idle_timeout_s = 60.0
        await bench.tick(limits.PROXY_HEADER_S)
        with contextlib.suppress(ConnectionError):
            assert await proxied[0].read() == b""
        assert not handshake[0].at_eof()
        await bench.tick(limits.HANDSHAKE_S)
        with contextlib.suppress(ConnectionError):
            assert await handshake[0].read() == b""
        await bench.tick(20)
        assert await ask(busy, b"here\r\n") == b"<here>\r\n"
        await bench.tick(20)
        assert await idle[0].readline() == b"TIMEOUT\r\n"
        assert await ask(busy, b"here\r\n") == b"<here>\r\n"
        for stream in (idle, busy, handshake, proxied):
            stream[1].close()

    run(scenario)


@pytest.mark.case(15)
def test_a_client_that_never_reads_is_cut(run) -> None:
    """A stalled download frees its memory after a while, and a close that can't be delivered does not wait for ever."""

    async def scenario(bench: Bench) -> None:
        _, writer = await bench.plain()
        writer.write(b"BIG 100000000\r\n")
        await asyncio.sleep(0.1)
        await bench.tick(limits.STALLED_WRITE_S)
        assert "lost" in bench.sessions[0].events
        _, second = await bench.plain()
        second.write(b"BIG 100000000\r\n")
        await asyncio.sleep(0.1)
        bench.sessions[1].wire.close()
        assert "lost" not in bench.sessions[1].events
        await bench.tick(limits.CLOSE_LINGER_S)
        assert "lost" in bench.sessions[1].events
        writer.close()
        second.close()

    run(scenario)


@pytest.mark.case(15)
def test_caps(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One address can't take all connections, and all together can't take more than there are; closing gives them back."""
    monkeypatch.setattr(limits, "PER_ADDRESS_MAX", 3)

    async def scenario(bench: Bench) -> None:
        streams = [await bench.plain() for _ in range(3)]
        reader, writer = await bench.plain(greet=False)
        assert await reader.read() == b"BUSY\r\n"
        writer.close()
        assert await ask(streams[0], b"QUIT\r\n") == b"BYE\r\n"
        await asyncio.sleep(0.02)
        streams[0][1].close()
        streams[0] = await bench.plain()
        with monkeypatch.context() as patch:
            patch.setattr(limits, "CONNECTIONS_MAX", 3)
            reader, writer = await bench.plain(greet=False)
            assert await reader.read() == b"BUSY\r\n"
            writer.close()
        for stream in streams:
            stream[1].close()

    run(scenario)


@pytest.mark.case(15)
def test_handshake_floods_keep_nothing(run) -> None:
    """A thousand names in ClientHellos, rubbish and half handshakes leave nothing behind and hold up no login."""

    async def scenario(bench: Bench) -> None:
        hellos = []
        for i in range(200):
            outgoing = ssl.MemoryBIO()
            tls = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=f"host{i}.example.com")
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            hellos.append(outgoing.read())
        writers = []
        for hello in [*hellos, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 70_000]:
            _, writer = await bench.connect(bench.tls_port)
            writer.write(hello)
            writers.append(writer)
        stream = await bench.tls()
        assert await ask(stream, b"in\r\n") == b"<in>\r\n"
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.1)
        assert len(bench.registry) == 1
        assert len(bench.sessions) == 1
        stream[1].close()

    run(scenario)


@pytest.mark.case(15)
def test_flood_of_handshakes_is_hurried(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a flood, unfinished handshakes give way after seconds; half a hello costs no TLS state at all."""
    monkeypatch.setattr(limits, "HANDSHAKES_PRESSED", 5)

    async def scenario(bench: Bench) -> None:
        outgoing = ssl.MemoryBIO()
        tls = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        for i in range(10):
            _, writer = await bench.connect(bench.tls_port)
            writer.write(hello[:-1] if i % 2 else hello)
        await asyncio.sleep(0.05)
        assert bench.registry.handshakes == 10
        assert sum(c._tls is not None for c in bench.registry._all) == 5  # type: ignore[attr-defined]
        stream = await bench.tls()
        await bench.tick(limits.HANDSHAKE_PRESSED_S)
        assert await ask(stream, b"in\r\n") == b"<in>\r\n"
        assert len(bench.registry) <= 1 + limits.HANDSHAKES_PRESSED
        await bench.tick(limits.HANDSHAKE_S)
        assert len(bench.registry) == 1
        assert bench.registry.handshakes == 0

    run(scenario)


def test_close_for_and_drain(run) -> None:
    """A locked mailbox's sessions end; a draining pod says goodbye to all, cuts those that don't listen, and takes nobody new."""

    async def scenario(bench: Bench) -> None:
        alice, bob, stuck = await bench.plain(), await bench.tls(), await bench.plain()
        bench.sessions[1].account_address = "bob@example.com"
        bench.sessions[2].account_address = "carol@example.com"
        assert bench.registry.close_for({"alice@example.com"}, ACCOUNT_CLOSED) == 1
        assert await alice[0].read() == b"SYS/PERM\r\n"
        bench.sessions[2].shut_down = lambda: None  # type: ignore[method-assign]
        assert await bench.registry.drain(0.2) == 1
        assert await bob[0].read() == b"SHUTDOWN\r\n"
        late = await bench.plain(greet=False)
        assert await late[0].read() == b"BUSY\r\n"
        for stream in (alice, bob, stuck, late):
            stream[1].close()

    run(scenario)


def test_listeners_close_and_keep_sessions(run) -> None:
    """After stop_accepting nobody new comes in, and nobody is thrown out."""

    async def scenario(bench: Bench) -> None:
        stream = await bench.plain()
        bench.listeners.stop_accepting()
        await asyncio.sleep(0.01)
        with pytest.raises(OSError):
            await bench.connect(bench.port)
        assert await ask(stream, b"still\r\n") == b"<still>\r\n"
        stream[1].close()

    run(scenario)


def test_channel_binding_is_what_openssl_says(run) -> None:
    """RFC 9266: both ends must come to the same 32 bytes; the other end here is the openssl program."""

    async def scenario(bench: Bench) -> None:
        options = ["-connect", f"127.0.0.1:{bench.tls_port}", "-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"]
        process = await asyncio.create_subprocess_exec("openssl", "s_client", *options, stdin=-1, stdout=-1, stderr=-3)
        out = (await process.communicate(b"QUIT\n"))[0].decode()
        exported = re.search(r"Keying material: ([0-9A-F]{64})", out)
        assert exported is not None
        info = bench.sessions[0].wire.tls
        assert info is not None
        assert info.other_bindings == (("tls-exporter", bytes.fromhex(exported[1])),)

    run(scenario)


def test_port_taken(run) -> None:
    """A port in use is an error at start, not a pod that listens to nothing."""

    async def scenario(bench: Bench) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError):
                await bench.listeners.open(ListenerName.POP3, taken.getsockname()[1], asyncio.Protocol, "127.0.0.1")

    run(scenario)


def test_file_limit_is_raised() -> None:
    """Twenty thousand connections need as many descriptors, where the system allows it."""
    import resource

    limit = raise_file_limit()
    assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]

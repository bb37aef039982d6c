"""The listeners on real sockets, on both event loops: TLS, PROXY protocol, caps, timeouts, draining."""

import asyncio
import contextlib
import functools
import gc
import inspect
import smtplib
import socket
import ssl
import struct
from typing import Any

import pytest
import uvloop

from mailpod.contract import ListenerConfig, ListenerName
from mailpod.errors import SHUTTING_DOWN
from mailpod.limits import smtp as limits
from mailpod.servers.proxy import V2_SIGNATURE, TrustedPeers
from mailpod.servers.smtp import SmtpServer, start_smtp
from mailpod.servers.tls import KeyPair, TlsProvider, self_made
from tests.support.smtp import PASSWORD, StillClock, example_services

MADE = self_made(["mx.example.com", "localhost", "127.0.0.1"], 1_790_000_000.0)
ALL = [ListenerConfig(name, 0) for name in (ListenerName.SMTP, ListenerName.SUBMISSION, ListenerName.SUBMISSIONS)]


def on_both_loops(test) -> Any:
    """Everything here holds on both event loops: the pod runs on uvloop, a developer's machine may not."""

    @functools.wraps(test)
    def run(loop_factory, **arguments) -> Any:
        async def body() -> Any:
            async with asyncio.timeout(20):
                await test(**arguments)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(body())

    parameters = [inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY), *inspect.signature(test).parameters.values()]
    signature = inspect.Signature([one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters])
    del run.__wrapped__
    run.__dict__["__signature__"] = signature
    return pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])(run)


class SteppedClock(StillClock):
    """Time stands still until a test moves it; waiting takes real time, so the sweep does not run away."""

    async def sleep(self, seconds) -> Any:
        await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def running(*, trusted=(), tls=True) -> Any:
    services: Any = example_services()
    services.clock = SteppedClock()
    server = await start_smtp(ALL if tls else ALL[:2], services, TlsProvider(MADE.pair) if tls else None, trusted, "127.0.0.1")
    try:
        yield server
    finally:
        await server.drain(0.0)


def client_context() -> Any:
    context = ssl.create_default_context(cadata=MADE.ca.decode())
    context.check_hostname = False
    # The certificate's dates are the example clock's, not the machine's.
    context.verify_mode = ssl.CERT_NONE
    return context


class Line:
    """A raw client."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server, name=ListenerName.SMTP, **kwargs) -> Any:
        return cls(*await asyncio.open_connection("127.0.0.1", server.ports[name], **kwargs))

    async def reply(self) -> Any:
        """One reply, multi-line ones whole."""
        lines = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 5)
            lines.append(line.decode().rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    async def send(self, text) -> Any:
        self.writer.write(text.encode() if isinstance(text, str) else text)
        return await self.reply()

    async def close(self) -> Any:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


def submit(server, *, port, implicit) -> None:
    client: smtplib.SMTP
    if implicit:
        client = smtplib.SMTP_SSL("127.0.0.1", port, local_hostname="client.example", timeout=5, context=client_context())
    else:
        client = smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=5)
        client.starttls(context=client_context())
    with client:
        client.login("alice@example.com", PASSWORD)
        client.sendmail("alice@example.com", ["bob@example.com"], "From: alice@example.com\r\nSubject: x\r\n\r\n" + ".dots\r\n" * 1000)


@pytest.mark.parametrize("name", [ListenerName.SUBMISSION, ListenerName.SUBMISSIONS])
@on_both_loops
async def test_submission_with_somebody_elses_client(name):
    """smtplib logs in over STARTTLS and over implicit TLS, and its message arrives byte for byte."""
    async with running() as server:
        implicit = name is ListenerName.SUBMISSIONS
        await asyncio.to_thread(submit, server, port=server.ports[name], implicit=implicit)
        ((folder, raw),) = server.services.store.account("bob@example.com").messages
        assert folder == "INBOX"
        assert raw.endswith(b"\r\nFrom: alice@example.com\r\nSubject: x\r\n\r\n" + b".dots\r\n" * 1000)
        assert b"with ESMTPSA (TLSv1.3 TLS_" in raw
        assert b"\r\nMessage-ID: <" in raw
        assert b"\r\nDate: " in raw
    assert len(server.connections) == 0


@on_both_loops
async def test_mx_without_tls():
    """Other servers deliver in plaintext where they have no TLS."""
    async with running() as server:
        line = await Line.to(server)
        assert (await line.reply()).startswith("220 mx.example.com ")
        await line.send("EHLO client.example\r\n")
        assert (await line.send("MAIL FROM:<a@b.example>\r\n")).startswith("250 2.1.0")
        assert (await line.send("RCPT TO:<alice@example.com>\r\n")).startswith("250 2.1.5")
        assert (await line.send("DATA\r\n")).startswith("354 ")
        body = b"x" * 78 + b"\r\n"
        assert (await line.send(b"Subject: x\r\n\r\n" + body * 3000 + b".\r\n")).startswith("250 2.0.0")
        assert (await line.send("QUIT\r\n")).startswith("221 2.0.0")
        assert await line.reader.read() == b""
        await line.close()
        assert server.services.store.account("alice@example.com").messages[0][1].endswith(body * 3000)
        assert server.shared.bodies.used_bytes == 0


@pytest.mark.case(3)
@on_both_loops
async def test_plaintext_behind_starttls_is_never_a_command():
    """CVE-2011-0411 and its relatives: an attacker on the wire puts commands behind STARTTLS, to be run inside TLS."""
    async with running() as server:
        line = await Line.to(server)
        await line.reply()
        await line.send("EHLO client.example\r\n")
        assert (await line.send("MAIL FROM:<a@b.example>\r\nRSET\r\n")).startswith("250 2.1.0")
        await line.reply()
        assert (await line.send("STARTTLS\r\nEHLO evil.example\r\nMAIL FROM:<evil@b.example>\r\n")).startswith("220 2.0.0")
        await line.writer.start_tls(client_context())
        # Had anything behind STARTTLS been run, its replies would come first, or there would be a transaction.
        assert (await line.send("RCPT TO:<alice@example.com>\r\n")).startswith("503 5.5.1 Send EHLO first")
        assert "STARTTLS" not in await line.send("EHLO client.example\r\n")
        assert (await line.send("RCPT TO:<alice@example.com>\r\n")).startswith("503 5.5.1 Send MAIL first")
        await line.close()


@pytest.mark.case(3)
@on_both_loops
async def test_starttls_behind_bdat():
    """The same with the command hidden behind a chunk."""
    async with running() as server:
        line = await Line.to(server)
        await line.reply()
        await line.send("EHLO client.example\r\n")
        assert (await line.send("BDAT 3\r\nabcSTARTTLS\r\nNOOP\r\n")).startswith("503 5.5.1")
        assert (await line.reply()).startswith("220 2.0.0")
        await line.writer.start_tls(client_context())
        assert (await line.send("MAIL FROM:<a@b.example>\r\n")).startswith("503 5.5.1 Send EHLO first")
        await line.close()


@pytest.mark.case(4)
@on_both_loops
async def test_failed_handshake_closes():
    """Who says STARTTLS and speaks plaintext after it gets no plaintext answer."""
    async with running() as server:
        line = await Line.to(server, ListenerName.SUBMISSION)
        await line.reply()
        await line.send("EHLO client.example\r\n")
        assert (await line.send("STARTTLS\r\n")).startswith("220")
        line.writer.write(b"MAIL FROM:<alice@example.com>\r\n")
        rest = await asyncio.wait_for(line.reader.read(), 5)
        assert b"250" not in rest
        assert b"530" not in rest
        await line.close()
        await gone(server)


async def gone(server) -> Any:
    for _ in range(200):
        if not len(server.connections):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection is still counted")


@pytest.mark.case(23)
@on_both_loops
async def test_old_tls_is_refused():
    """TLS 1.1 is broken; a client that has nothing better is told by the alert."""
    async with running() as server:
        context = client_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await Line.to(server, ListenerName.SUBMISSIONS, ssl=context)
        await gone(server)


@on_both_loops
async def test_a_handshake_that_fails_after_starttls_is_no_error_of_ours():
    """Anybody could fill the log with tracebacks, and hide in them what matters."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    async with running() as server:
        line = await Line.to(server)
        await line.reply()
        await line.send("EHLO client.example\r\n")
        assert (await line.send("STARTTLS\r\n")).startswith("220 ")
        line.writer.write(b"this is no ClientHello\r\n" * 10)
        with contextlib.suppress(ConnectionError):
            await line.reader.read()
        await line.close()
        await gone(server)
    gc.collect()
    await asyncio.sleep(0)
    assert faults == []


@pytest.mark.case(23)
@on_both_loops
async def test_certificate_reload_drops_nobody():
    """A renewed certificate is shown to who connects from then on; who is connected notices nothing."""
    async with running() as server:
        old = await Line.to(server, ListenerName.SUBMISSIONS, ssl=client_context())
        await old.reply()
        other = self_made(["other.example.com"], 1_790_000_000.0)
        assert server.tls.replace(KeyPair(other.pair.chain, other.pair.key))
        new = await Line.to(server, ListenerName.SUBMISSIONS, ssl=client_context())
        await new.reply()
        assert certificate(old) != certificate(new)
        assert (await old.send("NOOP\r\n")).startswith("250 2.0.0")
        await old.close()
        await new.close()


def certificate(line) -> Any:
    return line.writer.get_extra_info("ssl_object").getpeercert(True)


def v2(source="203.0.113.7", port=4711, tlvs=b"") -> Any:
    body = bytes(map(int, source.split("."))) + bytes([192, 0, 2, 1]) + struct.pack("!HH", port, 25) + tlvs
    return V2_SIGNATURE + b"\x21\x11" + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize("cut", [0, 1, 14, 1000])
@pytest.mark.parametrize("header", [v2(), v2(tlvs=b"\x04\x00\x02ab"), b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25\r\n"])
@on_both_loops
async def test_proxy_header_on_a_plain_port(header, cut):
    """The client's address is the one that the trusted balancer names, whether its first command comes with the header or later."""
    async with running(trusted=["127.0.0.0/8"]) as server:
        line = await Line.to(server)
        stream = header + b"EHLO client.example\r\n"
        line.writer.write(stream[:cut])
        await asyncio.sleep(0.02)
        line.writer.write(stream[cut:])
        assert (await line.reply()).startswith("220 ")
        assert (await line.reply()).startswith("250-")
        (session,) = server.sessions()
        assert session.wire.peer == ("203.0.113.7", 4711)
        await line.close()


@on_both_loops
async def test_proxy_header_in_front_of_tls():
    """On port 465 the header comes before the handshake, in the same packet as often as not."""
    async with running(trusted=["127.0.0.1/32"]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[ListenerName.SUBMISSIONS])
        writer.write(v2())
        await writer.start_tls(client_context())
        line = Line(reader, writer)
        assert (await line.reply()).startswith("220 ")
        (session,) = server.sessions()
        assert session.wire.peer.address == "203.0.113.7"
        assert session.wire.tls.version == "TLSv1.3"
        assert session.wire.tls.channel_binding[0] == "tls-server-end-point"
        await line.close()


@on_both_loops
async def test_proxy_header_missing_or_bad():
    """A trusted peer without a header is cut off: guessing would let its clients choose their address."""
    async with running(trusted=["127.0.0.0/8"]) as server:
        for junk in (b"EHLO client.example\r\n", b"PROXY TCP4 nonsense\r\n", V2_SIGNATURE + b"\x31\x11\x00\x00"):
            line = await Line.to(server)
            line.writer.write(junk)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(line.reader.read(), 5) == b""
            await line.close()
        await gone(server)


@on_both_loops
async def test_proxy_header_from_a_stranger_is_a_bad_command():
    """Nobody but trusted peers can claim an address."""
    async with running() as server:
        line = await Line.to(server)
        await line.reply()
        assert (await line.send(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25\r\n")).startswith("500 5.5.1")
        (session,) = server.sessions()
        assert session.wire.peer.address == "127.0.0.1"
        await line.close()


@pytest.mark.case(15)
@on_both_loops
async def test_caps_in_total_and_by_client():
    """Too many connections are told 421 at once; when one ends, the next is let in."""
    async with running() as server:
        server.connections._per_peer_max = 2
        lines = [await Line.to(server) for _ in range(3)]
        assert [(await line.reply())[:9] for line in lines] == ["220 mx.ex", "220 mx.ex", "421 4.7.0"]
        assert await lines[2].reader.read() == b""
        await lines[2].close()
        await lines[0].send("QUIT\r\n")
        await lines[0].close()
        await asyncio.sleep(0.05)
        again = await Line.to(server)
        assert (await again.reply()).startswith("220 ")
        server.connections._sessions_max = 2
        over = await Line.to(server)
        assert (await over.reply()).startswith("421 4.3.2")
        for line in (lines[1], again, over):
            await line.close()
        await gone(server)
        assert not server.connections._by_peer


@pytest.mark.case(15)
@on_both_loops
async def test_slow_and_silent_clients_are_ended():
    """Slowloris: silence, a line that never ends, a message at a byte a minute."""
    async with running() as server:
        clock = server.services.clock
        silent, half, slow, honest = [await Line.to(server) for _ in range(4)]
        for line in (silent, half, slow, honest):
            await line.reply()
        half.writer.write(b"EHLO cl")
        for line in (slow, honest):
            await line.send("EHLO client.example\r\n")
            await line.send("MAIL FROM:<a@b.example>\r\n")
            await line.send("RCPT TO:<alice@example.com>\r\n")
            await line.send("DATA\r\n")
        for _ in range(6):
            await asyncio.sleep(0.02)
            clock.time += 15
            slow.writer.write(b"x")
            honest.writer.write(b"x" * 78 + b"\r\n" * 900)
            await asyncio.sleep(0.02)
            server.connections.sweep()
        assert (await silent.reply()).startswith("421 4.4.2")
        assert (await half.reply()).startswith("421 4.4.2")
        assert (await slow.reply()).startswith("421 4.4.2")
        assert await slow.reader.read() == b""
        honest.writer.write(b"\r\n.\r\n")
        assert (await honest.reply())[:3] in ("250", "550")
        for line in (silent, half, slow, honest):
            await line.close()
        assert server.shared.bodies.used_bytes == 0


@pytest.mark.case(40)
@on_both_loops
async def test_client_that_vanishes_frees_its_slot():
    """RST in DATA or before 250: the slot and the memory are free at once, nothing half is stored."""
    async with running() as server:
        store = server.services.store
        store.gate = asyncio.Event()
        for tail in (b"half a mess", b"whole\r\n.\r\n"):
            line = await Line.to(server)
            await line.reply()
            await line.send("EHLO client.example\r\n")
            await line.send("MAIL FROM:<a@b.example>\r\n")
            await line.send("RCPT TO:<alice@example.com>\r\n")
            await line.send("DATA\r\n")
            line.writer.write(tail)
            await asyncio.sleep(0.05)
            # Close with a reset, not with an end of file: that would only mean that the client sends no more.
            sock = line.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.writer.transport.abort()
        await gone(server)
        assert server.shared.bodies.used_bytes == 0
        assert store.account("alice@example.com").messages == []


@on_both_loops
async def test_half_closed_client_reads_its_answer():
    """`printf … | nc -N` shuts its half down after the last command and waits for the answers."""
    async with running() as server:
        line = await Line.to(server)
        line.writer.write(b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n")
        for _ in range(5):
            last = await line.reply()
        assert last.startswith("354")
        line.writer.write(b"Subject: x\r\n\r\n.\r\n")
        line.writer.write_eof()
        assert (await asyncio.wait_for(line.reader.read(), 5)).startswith(b"250 2.0.0")
        await line.close()


@on_both_loops
async def test_client_that_reads_nothing_is_paused_then_cut():
    """A client that pipelines for ever and never reads must not fill the pod's memory with replies."""
    async with running() as server:
        line = await Line.to(server)
        line.reader._transport.pause_reading()
        (connection,) = await connections(server)
        for _ in range(900):
            line.writer.write(b"EHLO client.example\r\n" * 150 + b"MAIL FROM:<a@b.example>\r\n")
            if connection.congested:
                break
            await asyncio.sleep(0)
        assert connection.congested
        server.services.clock.time += limits.WRITE_TIMEOUT_S + 21
        server.connections.sweep()
        await gone(server)
        line.writer.transport.abort()


async def connections(server) -> Any:
    for _ in range(100):
        if any(connection.mail for connection in server.connections._all):
            return list(server.connections._all)
        await asyncio.sleep(0.01)
    raise AssertionError


@on_both_loops
async def test_drain_lets_a_message_finish():
    """SIGTERM: who is idle is told 421, whose message is on its way still gets its 250, then 421."""
    async with running() as server:
        store = server.services.store
        store.gate = asyncio.Event()
        idle, busy = [await Line.to(server) for _ in range(2)]
        await idle.reply()
        await busy.reply()
        await busy.send("EHLO client.example\r\n")
        await busy.send("MAIL FROM:<a@b.example>\r\n")
        await busy.send("RCPT TO:<alice@example.com>\r\n")
        await busy.send("DATA\r\n")
        busy.writer.write(b"Subject: x\r\n\r\n.\r\n")
        await asyncio.sleep(0.05)
        drain = asyncio.create_task(server.drain(5.0))
        assert (await idle.reply()).startswith("421 4.3.2")
        await asyncio.sleep(0.05)
        assert not drain.done()
        store.gate.set()
        assert (await busy.reply()).startswith("250 2.0.0")
        assert (await busy.reply()).startswith("421 4.3.2")
        assert await drain == 0
        with pytest.raises(ConnectionRefusedError):
            await Line.to(server)
        await idle.close()
        await busy.close()


@on_both_loops
async def test_drain_cuts_who_does_not_finish():
    """A client that stops in the middle of its message does not hold the pod."""
    async with running() as server:
        line = await Line.to(server)
        await line.reply()
        await line.send("EHLO client.example\r\n")
        await line.send("MAIL FROM:<a@b.example>\r\n")
        await line.send("RCPT TO:<alice@example.com>\r\n")
        await line.send("DATA\r\n")
        assert await server.drain(0.1) == 1
        with contextlib.suppress(ConnectionResetError):
            await line.reader.read()
        await line.close()


@on_both_loops
async def test_sessions_of_an_account_can_be_ended():
    """A changed password ends what was logged in with the old one; others stay."""
    async with running() as server:
        mine, other = [await Line.to(server, ListenerName.SUBMISSIONS, ssl=client_context()) for _ in range(2)]
        for line in (mine, other):
            await line.reply()
            await line.send("EHLO client.example\r\n")
        assert (await mine.send("AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAGIzQmxiaTF6WlhOaGJXVXRNVEl6\r\n")).startswith("235")
        assert sorted(session.account_address or "" for session in server.sessions()) == ["", "alice@example.com"]
        assert server.close_for("alice@example.com", SHUTTING_DOWN) == 1
        assert (await mine.reply()).startswith("421")
        assert (await other.send("NOOP\r\n")).startswith("250")
        await mine.close()
        await other.close()


@on_both_loops
async def test_without_tls_there_is_no_starttls():
    """A pod without a certificate says so instead of failing in the handshake."""
    async with running(tls=False) as server:
        line = await Line.to(server)
        await line.reply()
        assert "STARTTLS" not in await line.send("EHLO client.example\r\n")
        assert (await line.send("STARTTLS\r\n")).startswith("454 4.7.0")
        await line.close()


@on_both_loops
async def test_taken_port_closes_the_others():
    """A pod that cannot have all its ports has none."""
    async with running() as first:
        second = [ListenerConfig(ListenerName.SUBMISSION, 0), ListenerConfig(ListenerName.SMTP, first.ports[ListenerName.SMTP])]
        with pytest.raises(OSError, match="in use"):
            await start_smtp(second, first.services, first.tls, (), "127.0.0.1")
        assert SmtpServer(first.services, None).trusted is not None
        assert "127.0.0.1" not in TrustedPeers(())

"""POP3 over real sockets and TLS with a client that others wrote: the standard library's poplib."""

from __future__ import annotations

import asyncio
import poplib
import ssl
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from mailpod.adapters.system import SystemClock, SystemEntropy
from mailpod.contract import ListenerName
from mailpod.servers.listener import Listeners
from mailpod.servers.pop3 import pop3_factories
from mailpod.servers.registry import Connections
from mailpod.servers.tls import TlsProvider, self_made
from tests.support.pop3 import PASSWORD, Bench

SELF_MADE = self_made(["localhost"], SystemClock().now())
CLIENT = ssl.create_default_context(cadata=SELF_MADE.ca.decode())
MESSAGES = (
    b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\nend\r\n",
    b"Subject: large\r\n\r\n" + b"".join(b".%06d 0123456789 0123456789 0123456789\r\n" % i for i in range(40_000)),
    b"Subject: \xc3\xa9 8bit \xff\r\n\r\nno end of line",
    b"\r\n",
)


class Pod(NamedTuple):
    bench: Bench
    port: int
    tls_port: int
    connections: Connections


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    bench = Bench(*MESSAGES)
    connections = Connections(SystemClock(), SystemEntropy(), TlsProvider(SELF_MADE.pair))
    connections.start()
    listeners = Listeners()
    plain, tls = pop3_factories(bench.services, connections)
    port = await listeners.open(ListenerName.POP3, 0, plain, "127.0.0.1")
    tls_port = await listeners.open(ListenerName.POP3S, 0, tls, "127.0.0.1")
    yield Pod(bench, port, tls_port, connections)
    listeners.stop_accepting()
    await connections.stop()
    await asyncio.sleep(0.01)


def expected(message: bytes) -> list[bytes]:
    lines = message.split(b"\r\n")
    return lines[:-1] if lines[-1] == b"" else lines


def login(client: poplib.POP3) -> None:
    client.user("alice@example.com")
    client.pass_(PASSWORD)


@pytest.mark.parametrize("implicit", [True, False])
async def test_poplib_reads_everything(pod: Pod, implicit: bool) -> None:
    """Every message byte for byte, over both kinds of TLS; what was deleted is gone the next time."""

    def client_side() -> None:
        client: poplib.POP3
        if implicit:
            client = poplib.POP3_SSL("localhost", pod.tls_port, context=CLIENT, timeout=10)
        else:
            client = poplib.POP3("localhost", pod.port, timeout=10)
            assert "STLS" in client.capa()
            assert "SASL" not in client.capa()
            with pytest.raises(poplib.error_proto, match="TLS first"):
                login(client)
            client.stls(context=CLIENT)
        capabilities = client.capa()
        assert "SCRAM-SHA-256-PLUS" in capabilities["SASL"]
        assert "STLS" not in capabilities
        client.utf8()
        login(client)
        assert client.stat() == (4, sum(map(len, MESSAGES)))
        assert client.list()[1] == [b"%d %d" % (i, len(m)) for i, m in enumerate(MESSAGES, 1)]
        uidls = client.uidl()[1]
        assert len(set(uidls)) == 4
        for number, message in enumerate(MESSAGES, 1):
            assert client.retr(number)[1] == expected(message)
        assert client.top(2, 3)[1] == expected(MESSAGES[1])[:5]
        client.noop()
        client.dele(1)
        client.dele(3)
        client.rset()
        client.dele(3)
        assert b"1 messages removed" in client.quit()
        client = poplib.POP3_SSL("localhost", pod.tls_port, context=CLIENT, timeout=10)
        login(client)
        # The number is a place in this session's list, the identifier is the message's for ever.
        assert [line.split()[1] for line in client.uidl()[1]] == [line.split()[1] for line in uidls if not line.startswith(b"3 ")]
        client.quit()

    await asyncio.to_thread(client_side)
    await asyncio.sleep(0.05)
    assert len(pod.connections) == 0
    assert not pod.bench.shared.sessions


@pytest.mark.case(15)
async def test_many_clients_at_once(pod: Pod) -> None:
    """Twenty downloads at once, each complete, while new logins go on."""

    def client_side() -> int:
        client = poplib.POP3_SSL("localhost", pod.tls_port, context=CLIENT, timeout=20)
        login(client)
        lines = sum(client.retr(number)[1] == expected(message) for number, message in enumerate(MESSAGES, 1))
        client.quit()
        return lines

    assert await asyncio.gather(*(asyncio.to_thread(client_side) for _ in range(20))) == [len(MESSAGES)] * 20

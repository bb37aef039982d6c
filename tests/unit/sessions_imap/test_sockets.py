"""Mail libraries that others wrote, against the session on real sockets with TLS."""

from __future__ import annotations

import asyncio
import imaplib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import imapclient
import pytest

from mailpod.servers.imap import imap_factories
from mailpod.servers.registry import Connections
from mailpod.servers.tls import TlsProvider, self_made
from tests.support.clocks import RealClock, SeededEntropy
from tests.support.imap import ALICE, PASSWORD, make_pods

Ports = tuple[int, int]
MESSAGE = b"From: bob@example.com\r\nTo: alice@example.com\r\nSubject: Hi\r\n\r\nHello\r\n"


@pytest.fixture
async def ports() -> AsyncIterator[Ports]:
    """The ports of one pod: with STARTTLS, and with TLS from the first byte."""
    (pod,), _ = make_pods(1)
    connections = Connections(RealClock(), SeededEntropy(9), TlsProvider(self_made(["localhost"], RealClock().now()).pair))
    connections.start()
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(factory, "127.0.0.1", 0) for factory in imap_factories(pod.services, connections)]
    plain, tls = (server.sockets[0].getsockname()[1] for server in servers)
    yield plain, tls
    for server in servers:
        server.close()
    await connections.stop()
    await asyncio.sleep(0.05)


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _run(work: Callable[..., Any], *args: Any) -> None:
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, work, *args), 30)


def _imaplib(port: int) -> None:
    client = imaplib.IMAP4("127.0.0.1", port)
    assert "LOGINDISABLED" in client.capabilities
    client.starttls(_trusting())
    client.login(ALICE, PASSWORD)
    assert client.append("INBOX", "(\\Flagged)", "", MESSAGE)[0] == "OK"
    assert client.select("INBOX") == ("OK", [b"1"])
    assert client.search(None, "FLAGGED", "SUBJECT", "hi") == ("OK", [b"1"])
    data: Any = client.fetch("1", "(UID BODY[])")[1]
    assert data[0][1] == MESSAGE
    assert client.copy("1", "Archive")[0] == "OK"
    assert client.store("1", "+FLAGS", "(\\Deleted)")[0] == "OK"
    assert client.expunge() == ("OK", [b"1"])
    assert client.close()[0] == "OK"
    assert client.logout()[0] == "BYE"


async def test_imaplib(ports):
    """Scripts in Python's own library could not read their mail."""
    await _run(_imaplib, ports[0])


def _imapclient(port: int) -> None:
    with imapclient.IMAPClient("127.0.0.1", port, ssl_context=_trusting()) as client:
        client.login(ALICE, PASSWORD)
        assert (b"\\HasNoChildren", b"\\Sent") in [flags for flags, _, _ in client.list_folders()]
        client.create_folder("Büro/Pläne")
        assert "Büro/Pläne" in [name for _, _, name in client.list_folders()]
        for _ in range(3):
            client.append("Büro/Pläne", MESSAGE, flags=["\\Seen"])
        client.select_folder("Büro/Pläne")
        uids = client.search(["SEEN"])
        assert uids == [1, 2, 3]
        fetched = client.fetch(uids, ["ENVELOPE", "FLAGS", "RFC822.SIZE", "BODY[]", "BODYSTRUCTURE", "INTERNALDATE"])
        assert {item[b"BODY[]"] for item in fetched.values()} == {MESSAGE}
        assert fetched[1][b"ENVELOPE"].subject == b"Hi"
        assert client.sort("SUBJECT") == [1, 2, 3]
        assert client.add_flags([2], ["$Work"])[2] == (b"\\Seen", b"$Work")
        client.idle()
        with imapclient.IMAPClient("127.0.0.1", port, ssl_context=_trusting()) as other:
            other.login(ALICE, PASSWORD)
            other.select_folder("Büro/Pläne")
            other.delete_messages([1])
            other.expunge()
        heard = []
        while (1, b"EXPUNGE") not in heard:
            heard += client.idle_check(timeout=10)
        client.idle_done()
        client.move([2], "Trash")
        assert {quota.resource for quota in client.get_quota_root("INBOX")[1]} == {"STORAGE", "MESSAGE"}
        assert client.folder_status("Trash")[b"MESSAGES"] == 1
        client.rename_folder("Büro", "Office")
        assert client.folder_exists("Office/Pläne")


async def test_imapclient(ports):
    """Programs on the most used library could not work with their folders, or would not be woken by IDLE."""
    await _run(_imapclient, ports[1])

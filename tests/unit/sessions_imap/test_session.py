"""A session's life: faults, draining, timeouts, pipelining, and what a hostile client may cost."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
import tracemalloc

import pytest

from mailpod import telemetry
from mailpod.contract import Credential, MailboxConfig, Protocol, ScramKeys
from mailpod.directory.directory import Directory
from mailpod.errors import ACCOUNT_CLOSED, OVER_QUOTA, Corrupt, InDoubt, Refused, StoreUnavailable
from mailpod.limits import imap_session as limits
from mailpod.sessions.imap.answers import DISABLED
from tests.support.imap import ALICE, PASSWORD, TLS, directory, make_pods


@pytest.fixture
async def pods():
    made, _ = make_pods()
    return made


async def _raise(error: Exception) -> None:
    raise error


# --- faults ---


@pytest.mark.case(26)
@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (StoreUnavailable("timeout"), b"NO [UNAVAILABLE] Mail storage does not answer; try again later"),
        (InDoubt("late"), b"NO [UNAVAILABLE] Mail storage did not confirm; try again later"),
        (Corrupt("chain"), b"NO [SERVERBUG] The mailbox's data does not verify; the administrator has to act"),
        (Refused(OVER_QUOTA), b"NO [OVERQUOTA] The mailbox is full"),
        (ZeroDivisionError("secret detail"), b"NO [SERVERBUG] Internal error; it has been logged"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_a_fault_is_one_answer(pods, monkeypatch, error, answer):
    """One failing command would end the session, or show a client the inside of the server."""
    client = await pods[0].login(select="INBOX")
    monkeypatch.setattr(client.session.opened_account, "store_flags", lambda *_a, **_k: _raise(error), raising=False)
    await client.append(b"X: 1\r\n\r\n")
    output = await client.command("STORE 1 +FLAGS (\\Seen)")
    assert answer in output
    assert b"secret" not in output
    await client.ok("FETCH 1 FLAGS")


async def test_an_erased_account_ends_the_session(pods, monkeypatch):
    """A session that outlives its account could show the next owner's mail."""
    client = await pods[0].login(select="INBOX")
    monkeypatch.setattr(client.session.opened_account, "refresh", lambda *_a, **_k: _raise(Refused(ACCOUNT_CLOSED)), raising=False)
    output = await client.command("NOOP")
    assert output.endswith(b"* BYE The mailbox has been erased\r\n")
    assert client.wire.closed


# --- the end ---


@pytest.mark.case(35)
async def test_draining_says_bye(pods):
    """Clients of a pod that is replaced would see a broken connection and report an error to their users."""
    client = await pods[0].login(select="INBOX")
    client.session.shut_down()
    assert client.take() == b"* BYE [UNAVAILABLE] The server is shutting down; connect again\r\n"
    assert client.wire.closed


@pytest.mark.case(35)
async def test_draining_waits_for_the_command(pods):
    """A commit that is under way would be left unanswered, and the client would not know whether it happened."""
    client = await pods[0].login(select="INBOX")
    client.send(b"a1 CREATE Plans\r\na2 NOOP\r\n")
    client.session.shut_down()
    assert not client.wire.closed
    await client.settle()
    output = client.take()
    assert output.startswith(b"a1 OK [MAILBOXID")
    assert output.endswith(b"* BYE [UNAVAILABLE] The server is shutting down; connect again\r\n")
    assert b"a2" not in output
    assert client.wire.closed


async def test_close_for_reaches_an_idler(pods):
    """A mailbox that its administrator has locked would stay open on phones for days."""
    client = await pods[0].login(select="INBOX")
    assert client.session.account_address == ALICE
    await client.raw(b"a1 IDLE\r\n")
    client.session.close_for(DISABLED)
    assert client.take() == b"* BYE The mailbox was changed by its administrator; log in again\r\n"
    assert client.wire.closed


async def test_timeouts(pods):
    """RFC 9051 §5.4: at least 30 minutes after login; without one, a connection must not stay."""
    stranger = pods[0].connect()
    assert stranger.session.idle_timeout_s <= 120
    stranger.take()
    stranger.session.timed_out()
    assert stranger.take() == b"* BYE Idle for too long\r\n"
    client = await pods[0].login()
    assert client.session.idle_timeout_s >= 30 * 60


async def test_a_lost_connection_cancels_and_forgets(pods, monkeypatch):
    """Commands of clients that are gone would go on costing, and their sessions would stay in memory."""
    client = await pods[0].login(select="INBOX")
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def forever(*_args, **_kwargs):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(client.session.opened_account, "refresh", forever, raising=False)
    client.send(b"a1 NOOP\r\n")
    await started.wait()
    client.session.connection_lost()
    await asyncio.wait_for(cancelled.wait(), 1)
    await asyncio.sleep(0)
    assert client.session._task is None
    assert not pods[0].hub.sessions()


async def test_end_of_input_answers_what_was_complete(pods):
    """A script that sends its commands and closes its half would get no answers."""
    client = await pods[0].login()
    client.send(b"a1 NOOP\r\na2 NOOP\r\na3 NO")
    client.session.eof_received()
    await client.settle()
    assert client.take() == b"a1 OK Done\r\na2 OK Done\r\n"
    assert client.wire.closed


# --- pipelining ---


async def test_pipelined_commands_are_answered_in_order(pods):
    """Clients pair answers with commands; one that overtakes another would be taken for the other's."""
    client = await pods[0].login()
    client.send(b"".join(b"p%d STATUS INBOX (MESSAGES)\r\n" % number for number in range(200)))
    await client.settle()
    tags = [line.split()[0] for line in client.take().split(b"\r\n") if line.startswith(b"p")]
    assert tags == [b"p%d" % number for number in range(200)]


async def test_a_flood_behind_a_command_stops_the_reading(pods, monkeypatch):
    """A client that never stops sending would fill the pod's memory while one command runs."""
    client = await pods[0].login()
    gate = asyncio.Event()
    account = client.session.opened_account
    real = account.refresh

    async def slow(*args, **kwargs):
        await gate.wait()
        return await real(*args, **kwargs)

    monkeypatch.setattr(account, "refresh", slow, raising=False)
    client.send(b'a0 LIST "" *\r\n')
    await asyncio.sleep(0)
    chunk = b"a1 NOOP\r\n" * 2000
    sent = 0
    while not client.wire.paused:
        client.send(chunk)
        sent += len(chunk)
        assert sent < 2 * limits.PIPELINE_BYTES_MAX
    gate.set()
    await client.settle(30)
    assert not client.wire.paused
    assert client.take().count(b"a1 OK") == sent // 9


# --- login ---


def _scram_client(user: str, password: str, nonce: str):
    """RFC 5802 §3, from the client's side."""
    first_bare = f"n={user},r={nonce}"
    server_first = yield f"n,,{first_bare}".encode()
    fields = dict(item.split("=", 1) for item in server_first.decode().split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    final_bare = f"c={base64.b64encode(b'n,,').decode()},r={fields['r']}"
    message = f"{first_bare},{server_first.decode()},{final_bare}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = bytes(one ^ other for one, other in zip(client_key, signature, strict=True))
    server_final = yield f"{final_bare},p={base64.b64encode(proof).decode()}".encode()
    expected = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
    assert server_final == b"v=" + base64.b64encode(expected)
    yield b""


async def test_scram(pods):
    """Mail programs that refuse to send a password in any form could not log in."""
    salt = b"0123456789abcdef"
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), salt, 4096)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    keys = ScramKeys(salt, 4096, stored, hmac.digest(salted, b"Server Key", "sha256"))
    mailbox = MailboxConfig(
        address=ALICE, quota_bytes=10**6, protocols=(Protocol.IMAP,), credentials=(Credential("", "$sha256$AAAA$AAAA", keys),)
    )
    pods[0].services.directory = Directory(directory().config, [mailbox])
    client = pods[0].connect()
    exchange = _scram_client(ALICE, PASSWORD, "rOprNGfwEbeRWgbNEkqO")
    client.take()
    output = await client.raw(b"a1 AUTHENTICATE SCRAM-SHA-256 " + base64.b64encode(next(exchange)) + b"\r\n")
    for _ in range(2):
        assert output.startswith(b"+ ")
        output = await client.raw(base64.b64encode(exchange.send(base64.b64decode(output[2:]))) + b"\r\n")
    assert output.startswith(b"a1 OK [CAPABILITY")


@pytest.mark.case(3)
async def test_nothing_sent_before_tls_counts(pods):
    """RFC 9051 §11.1: an attacker in the middle would put commands of his own into the encrypted session."""
    client = pods[0].connect(tls=None)
    client.take()
    client.send(b'a1 STARTTLS\r\na2 LOGIN alice@example.com "' + PASSWORD.encode() + b'"\r\na3 CAPABILITY\r\n')
    await client.settle()
    assert client.take() == b"a1 OK Begin TLS negotiation now\r\n"
    assert client.wire.tls == TLS
    assert b"AUTH=PLAIN" in await client.command("CAPABILITY")


# --- limits ---


@pytest.mark.case(10)
@pytest.mark.parametrize(
    "line",
    [b"a1 LOGIN {4294967295+}\r\n", b"a1 LOGIN {5000}\r\n", b"a1 LOGIN {99999999999999999999999999}\r\n", b"a1 " + b"x" * 40_000 + b"\r\n"],
)
async def test_nothing_large_before_login(pods, line):
    """Whoever finds the port could make the pod allocate what he likes."""
    client = pods[0].connect()
    client.take()
    tracemalloc.start()
    client.send(line)
    await client.settle()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert b"BAD" in client.take()


@pytest.mark.case(11)
@pytest.mark.parametrize(
    "program", [b"(" * 100_000, b"NOT " * 100_000 + b"ALL", b"OR ALL " * 20_000 + b"ALL", b"NOT " * 40 + b"(" * 40 + b"ALL" + b")" * 40]
)
async def test_deep_programs_are_refused(pods, program):
    """A client could end the process by recursion."""
    client = await pods[0].login(select="INBOX")
    started = time.process_time()
    assert b" BAD " in await client.command(b"SEARCH " + program)
    assert time.process_time() - started < 1
    await client.ok("NOOP")


async def test_what_speaks_no_imap_is_cut_off(pods):
    """A confused device would keep a connection busy for ever."""
    client = pods[0].connect()
    client.take()
    client.send(b"GET / HTTP/1.1\r\nHost: mail.example.com\r\n" * 20)
    await client.settle()
    output = client.take()
    assert output.endswith(b"* BYE Too many bad commands\r\n")
    assert output.count(b"\r\n") <= 11
    assert client.wire.closed


@pytest.mark.case(13)
async def test_fifty_appends_at_the_edge_of_the_quota():
    """Sessions that append at once would each find room, and overshoot the quota by all of them."""
    (pod,), _ = make_pods(1, found=directory(quota_bytes=100_000))
    clients = [await pod.login() for _ in range(50)]
    message = b"Subject: x\r\n\r\n" + b"y" * 9_000 + b"\r\n"
    for client in clients:
        client.send(b"a1 APPEND INBOX {%d}\r\n" % len(message))
    for client in clients:
        await client.settle()
    accepted = [client for client in clients if client.take() == b"+ OK\r\n"]
    for client in accepted:
        client.send(message + b"\r\n")
    for client in accepted:
        await client.settle()
        assert b"a1 OK" in client.take()
    usage = (await pod.services.store.open(ALICE)).view.usage
    assert usage.messages == len(accepted) == 11
    assert usage.bytes <= 100_000
    assert b"NO [OVERQUOTA]" in await clients[0].append(message)
    assert pod.hub.receiving_bytes == 0


@pytest.mark.case(13)
async def test_appends_through_several_pods_overshoot_the_quota_by_one_message():
    """Each pod counts only what comes through itself: together they would overshoot by as much as each of them takes."""
    made, _ = make_pods(2, found=directory(quota_bytes=100_000))
    clients = [await pod.login() for pod in made for _ in range(20)]
    message = b"Subject: x\r\n\r\n" + b"y" * 9_000 + b"\r\n"
    for client in clients:
        client.send(b"a1 APPEND INBOX {%d+}\r\n%b\r\n" % (len(message), message))
    for client in clients:
        await client.settle()
    answers = [client.take() for client in clients]
    accepted = sum(b"a1 OK" in answer for answer in answers)
    assert all(b"a1 OK" in answer or b"a1 NO [OVERQUOTA]" in answer for answer in answers)
    view = await (await made[0].services.store.open(ALICE)).refresh()
    assert view.usage.messages == accepted
    assert 100_000 - len(message) < view.usage.bytes <= 100_000 + len(message)


@pytest.mark.case(13)
async def test_an_aborted_append_leaves_nothing(pods):
    """Connections that break in the middle of a message would eat up the quota, or leave half of it in the folder."""
    client = await pods[0].login()
    client.send(b"a1 APPEND INBOX {1000}\r\n")
    await client.settle()
    client.send(b"x" * 500)
    assert pods[0].hub.reserved(ALICE) == 1000
    client.session.connection_lost()
    assert pods[0].hub.reserved(ALICE) == pods[0].hub.receiving_bytes == 0
    assert (await pods[0].services.store.open(ALICE)).view.usage.messages == 0


@pytest.mark.case(12)
async def test_a_search_that_reads_too_much_is_stopped(pods, monkeypatch):
    """One search through years of mail would take all of the pod's time."""
    client = await pods[0].login(select="INBOX")
    for number in range(6):
        await client.append(b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number))
    monkeypatch.setattr(limits, "SEARCH_READ_BYTES_MAX", 60)
    assert b" NO [LIMIT]" in await client.command("SEARCH BODY nothing")
    assert b"* SEARCH 4\r\n" in await client.ok("SEARCH SUBJECT 3 BODY body")
    monkeypatch.setattr(limits, "SEARCH_TEXT_KEYS_MAX", 1)
    assert b" NO [LIMIT]" in await client.command("SEARCH OR BODY x BODY y")


async def test_a_failed_save_empties_the_result(pods, monkeypatch):
    """RFC 5182 §2.1: a client's next command on `$` would act on messages of an older search."""
    client = await pods[0].login(select="INBOX")
    await client.append(b"X: 1\r\n\r\nb\r\n")
    await client.ok("SEARCH RETURN (SAVE) ALL")
    monkeypatch.setattr(limits, "SEARCH_READ_BYTES_MAX", 0)
    assert b" NO [LIMIT]" in await client.command("SEARCH RETURN (SAVE) BODY x")
    assert await client.lines("FETCH $ FLAGS") == []


# --- what is counted ---


async def test_commands_are_counted_by_verb(pods):
    """Label values that a client can choose would grow without end in the pod and in Prometheus."""
    client = await pods[0].login()

    def count(command: str, result: str) -> float:
        return (
            telemetry.REGISTRY.get_sample_value("mailpod_commands_total", {"protocol": "imaps", "command": command, "result": result}) or 0
        )

    before = count("NOOP", "OK"), count("other", "BAD")
    await client.ok("NOOP")
    await client.command("FROBNICATE-7")
    assert (count("NOOP", "OK"), count("other", "BAD")) == (before[0] + 1, before[1] + 1)

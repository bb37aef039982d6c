"""What a session does beyond the dialogue: limits, brakes, failures of the store, memory, time."""

import asyncio
import base64
import time
from typing import Any

import pytest
import scramp
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod import telemetry
from mailpod.contract import Credential, MailboxState, ScramKeys
from mailpod.directory.directory import Directory
from mailpod.errors import CONDITIONAL_WRITES_REFUSED, SHUTTING_DOWN, InDoubt, Refused, StoreUnavailable
from mailpod.limits import smtp as limits
from mailpod.sessions.smtp import MX, SUBMISSIONS, SmtpShared
from mailpod.sessions.smtp.shared import BodyBudget
from tests.support.smtp import PASSWORD, Dialogue, code_of, example_services, mailbox, verifier

HELLO = "EHLO client.example\r\n"
START = "MAIL FROM:<a@b.example>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n"
LOGIN = "AUTH PLAIN " + base64.b64encode(b"\0alice@example.com\0" + PASSWORD.encode()).decode() + "\r\n"


async def ready(**kwargs) -> Any:
    dialogue = Dialogue(**kwargs)
    await dialogue.send(HELLO)
    return dialogue


def inbox(dialogue, address="alice@example.com") -> Any:
    return dialogue.store.account(address).messages


@pytest.mark.case(1)
@pytest.mark.case(2)
@pytest.mark.parametrize(
    "sequence", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r\n.\n", b"\r.\r\n", b"\n\n.\n\n", b"\r\n\0.\r\n", b"\r\r\n.\r\r\n"]
)
@pytest.mark.parametrize("rules", [MX, SUBMISSIONS], ids=["mx", "submissions"])
@pytest.mark.parametrize("step", [0, 1])
async def test_smuggling_gives_one_message_or_none(sequence, rules, step):
    """SMTP smuggling: what stands behind a false end of data must never become a message of its own, on any port."""
    dialogue = await ready(rules=rules, tls=rules.implicit_tls)
    if rules.submission:
        await dialogue.send(LOGIN)
    await dialogue.send("MAIL FROM:<alice@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
    evil = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\nFrom: evil@b.example\r\n\r\nevil"
    reply = await dialogue.send(b"From: alice@example.com\r\n\r\ntext" + sequence + evil + b"\r\n.\r\n", step)
    assert reply.startswith("550 5.6.0 ")
    assert reply.count("\r\n") == 1
    assert inbox(dialogue, "bob@example.com") == []
    assert code_of(await dialogue.send("NOOP\r\n")) == "250 2.0.0"


async def test_content_behind_a_refused_data_is_never_read_as_commands():
    """A client that pipelines past DATA whatever the answer would have its message executed."""
    dialogue = await ready()
    reply = await dialogue.send(
        "MAIL FROM:<a@b.example>\r\nRCPT TO:<no@example.com>\r\nDATA\r\nRSET\r\nMAIL FROM:<evil@b.example>\r\n.\r\n"
    )
    assert [code_of(line) for line in reply.splitlines()] == ["250 2.1.0", "550 5.1.1", "421 4.5.0"]
    assert dialogue.wire.closed


@pytest.mark.case(5)
async def test_monstrous_input_is_refused_fast():
    """1 MiB of command line, 50 MB of headers, 100,000 addresses: 5xx or closed within a second of CPU, and nothing kept."""
    began = time.process_time()
    dialogue = await ready()
    reply = await dialogue.send(b"MAIL FROM:<" + b"a" * (1 << 20) + b">\r\n")
    assert code_of(reply) == "500 5.5.6"
    dialogue = await ready()
    reply = ""
    for _ in range(16):
        reply += await dialogue.send(b"x" * (1 << 16))
    assert code_of(reply) == "421 4.5.2"
    assert dialogue.wire.closed
    dialogue = await ready()
    await dialogue.send(START)
    for _ in range(50):
        await dialogue.send(b"X-Header: y\r\n" * 77_000)
    assert code_of(await dialogue.send(".\r\n")) == "552 5.3.4"
    for content in (b"To: " + b"<a@b.example>,\r\n " * 50_000 + b"<a@b.example>\r\n", b"X: y\r\n" * 10_000, b"x" * 900_000 + b"\r\n"):
        await dialogue.send(START)
        assert (await dialogue.send(content + b"\r\n.\r\n"))[:3] in ("550", "552", "250")
    assert time.process_time() - began < 1.0
    assert dialogue.shared.bodies.used_bytes == 0


@pytest.mark.case(20)
async def test_loops_are_refused_in_session():
    """Received > 50, or a mailbox's own Delivered-To: refused to the sender's face, so that no bounce is ever made."""
    dialogue = await ready()
    for hops, code in ((50, "250 2.0.0"), (51, "554 5.4.6")):
        await dialogue.send(START)
        assert code_of(await dialogue.send("Received: by x; y\r\n" * hops + "\r\n.\r\n")) == code
    stored = inbox(dialogue)[0][1]
    await dialogue.send(START)
    assert code_of(await dialogue.send(stored + b".\r\n")) == "554 5.4.6"


@pytest.mark.case(21)
async def test_recipient_1001_is_deferred():
    """A list's server sends the rest in another transaction; 5xx would lose its members."""
    directory_services = example_services()
    dialogue = await ready(services=directory_services)
    await dialogue.send("MAIL FROM:<a@b.example>\r\n")
    commands = "".join(f"RCPT TO:<alice+{number}@example.com>\r\n" for number in range(1001))
    for _ in range(1002):
        await asyncio.sleep(0)
    replies = await dialogue.send(commands)
    while replies.count("\r\n") < 1001:
        await dialogue.settle()
        replies += dialogue.read()
    codes = [code_of(line) for line in replies.splitlines()]
    assert codes == ["250 2.1.5"] * 1000 + ["452 4.5.3"]


@pytest.mark.case(21)
async def test_dictionary_attack_is_slowed_across_sessions():
    """Guessing addresses costs time from the sixth on, also over new connections; honest recipients stay quick."""
    services: Any = example_services()
    shared = SmtpShared(services)
    for number in range(12):
        dialogue = await ready(services=services, shared=shared)
        await dialogue.send("MAIL FROM:<>\r\n")
        assert code_of(await dialogue.send(f"RCPT TO:<guess{number}@example.com>\r\n")) == "550 5.1.1"
        assert code_of(await dialogue.send("RCPT TO:<bob@example.com>\r\n")) == "250 2.1.5"
    assert services.clock.slept == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5], rel=0.2)
    dialogue = await ready(services=services, shared=shared)
    await dialogue.send("MAIL FROM:<>\r\n")
    for number in range(limits.UNKNOWN_RECIPIENTS_MAX):
        last = await dialogue.send(f"RCPT TO:<more{number}@example.com>\r\n")
    assert code_of(last) == "550 5.1.1"
    assert code_of(await dialogue.send("RCPT TO:<more@example.com>\r\n")) == "421 4.7.0"
    assert dialogue.wire.closed
    services.clock.time += 3600
    assert shared.guesses.missed("192.0.2.1") == 0


@pytest.mark.case(26)
@pytest.mark.parametrize(
    ("failure", "answer"),
    [
        (StoreUnavailable("503"), "451 4.3.0 Mail storage does not answer; try again later"),
        (InDoubt("lost reply"), "451 4.3.0 Mail storage did not confirm; try again later"),
        (Refused(CONDITIONAL_WRITES_REFUSED), "451 4.3.0 Mail storage refuses conditional writes; the administrator has to act"),
    ],
)
async def test_store_failures_are_temporary_and_named(failure, answer):
    """Never a false 250: the client keeps the message, and the reason is the same in reply, metric and log."""
    counter = telemetry.REPLIES.labels("smtp", "451", failure.reason.name)
    before = counter._value.get()
    dialogue = await ready()
    dialogue.store.failure = failure
    for recipients in ("", "RCPT TO:<bob@example.com>\r\n"):
        await dialogue.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<alice@example.com>\r\n" + recipients + "DATA\r\n")
        assert await dialogue.send("Subject: x\r\n\r\n.\r\n") == answer + "\r\n"
    assert counter._value.get() == before + 2
    dialogue.store.failure = None
    await dialogue.send(START)
    assert code_of(await dialogue.send("Subject: x\r\n\r\n.\r\n")) == "250 2.0.0"
    assert len(inbox(dialogue)) == 1
    assert dialogue.shared.quota._in_flight == {}


@pytest.mark.case(26)
async def test_store_failing_at_rcpt():
    """The account cannot be opened: this recipient is deferred, before the message is sent."""
    dialogue = await ready()
    dialogue.store.open_failure = StoreUnavailable("timeout")
    await dialogue.send("MAIL FROM:<a@b.example>\r\n")
    assert code_of(await dialogue.send("RCPT TO:<alice@example.com>\r\n")) == "451 4.3.0"
    dialogue.store.open_failure = None
    assert code_of(await dialogue.send("RCPT TO:<alice@example.com>\r\n")) == "250 2.1.5"


async def test_slow_store_is_answered_before_the_client_gives_up(monkeypatch):
    """A client that times out first sends again although we may have the message: better our 451."""
    monkeypatch.setattr(limits, "DELIVERY_TIMEOUT_S", 0.05)
    dialogue = await ready()
    dialogue.store.gate = asyncio.Event()
    await dialogue.send(START)
    dialogue.session.data_received(b"Subject: x\r\n\r\n.\r\n")
    await asyncio.sleep(0.1)
    assert dialogue.read().startswith("451 4.3.0 Mail storage did not answer in time")
    assert dialogue.shared.quota._in_flight == {}
    assert inbox(dialogue) == []


async def test_full_mailbox_at_rcpt_and_by_declared_size():
    """452 4.2.2 before the message is sent; the store is asked again before saying no."""
    dialogue = await ready()
    account = dialogue.store.account("alice@example.com")
    account.used = 9_999_000
    await dialogue.send("MAIL FROM:<a@b.example> SIZE=2000\r\n")
    assert code_of(await dialogue.send("RCPT TO:<alice@example.com>\r\n")) == "452 4.2.2"
    assert account.refreshed == 1
    assert code_of(await dialogue.send("RCPT TO:<bob@example.com>\r\n")) == "250 2.1.5"
    await dialogue.send("RSET\r\n")
    account.used = 10_000_000
    await dialogue.send("MAIL FROM:<a@b.example>\r\n")
    assert code_of(await dialogue.send("RCPT TO:<alice@example.com>\r\n")) == "452 4.2.2"
    # Emptied through another pod: this pod learns of it by asking.
    dialogue.store.on_refresh = lambda account: setattr(account, "used", 0)
    assert code_of(await dialogue.send("RCPT TO:<alice@example.com>\r\n")) == "250 2.1.5"


@pytest.mark.case(13)
async def test_parallel_deliveries_at_the_quotas_edge():
    """50 at once into the last 10 KB: as many as fit, the others told 452; none half there."""
    services: Any = example_services()
    shared = SmtpShared(services)
    services.store.account("alice@example.com").used = 10_000_000 - 10_000
    services.store.gate = asyncio.Event()
    dialogues = [await ready(services=services, shared=shared) for _ in range(50)]
    for dialogue in dialogues:
        await dialogue.send(START)
        dialogue.session.data_received(b"Subject: x\r\n\r\n" + b"x" * 78 + b"\r\n" * 300 + b"\r\n.\r\n")
    await dialogues[0].settle()
    services.store.gate.set()
    await dialogues[0].settle()
    codes = [code_of(dialogue.read()) for dialogue in dialogues]
    stored = services.store.account("alice@example.com")
    assert 0 < codes.count("250 2.0.0") == len(stored.messages) < 50
    assert set(codes) == {"250 2.0.0", "452 4.2.2"}
    assert stored.used <= 10_000_000
    assert shared.quota._in_flight == {}


async def test_bodies_in_flight_are_bounded():
    """Many large messages at once: those that do not fit in memory are told to come again, those that do are stored."""
    services: Any = example_services()
    shared = SmtpShared(services, BodyBudget(100_000))
    first, second = [await ready(services=services, shared=shared) for _ in range(2)]
    await first.send(START)
    await second.send(START)
    line = b"x" * 98 + b"\r\n"
    await first.send(line * 600)
    await second.send(line * 600)
    assert shared.bodies.used_bytes == 60_000
    assert code_of(await second.send("\r\n.\r\n")) == "452 4.3.1"
    assert code_of(await second.send("MAIL FROM:<a@b.example> SIZE=50000\r\n")) == "452 4.3.1"
    assert code_of(await first.send("\r\n.\r\n")) == "250 2.0.0"
    assert shared.bodies.used_bytes == 0
    third = await ready(services=services, shared=shared)
    await third.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<alice@example.com>\r\n")
    assert code_of(await third.send(b"BDAT 60000\r\n" + line * 600)) == "250 2.0.0"
    assert code_of(await third.send(b"BDAT 60000\r\n" + line * 600)) == "452 4.3.1"
    assert shared.bodies.used_bytes == 0
    assert code_of(await third.send(b"BDAT 0 LAST\r\n")) == "503 5.5.1"
    third.session.connection_lost()
    assert shared.bodies.used_bytes == 0


async def test_size_is_exact_and_by_the_strictest_recipient():
    """Transparency dots do not count (RFC 1870 §4); each domain has its own limit."""
    dialogue = await ready()
    await dialogue.send("MAIL FROM:<a@b.example> SIZE=200001\r\n")
    assert code_of(await dialogue.send("RCPT TO:<x@example.org>\r\n")) == "552 5.3.4"
    assert code_of(await dialogue.send("RCPT TO:<alice@example.com>\r\n")) == "250 2.1.5"
    await dialogue.send("RSET\r\n")
    content = b"S: x\r\n\r\n" + b"..\r\n" * 20 + b"x" * (200_000 - 8 - 60 - 2) + b"\r\n"
    for extra, code in ((b"", "250 2.0.0"), (b"y", "552 5.3.4")):
        await dialogue.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<x@example.org>\r\nRCPT TO:<alice@example.com>\r\nDATA\r\n")
        assert code_of(await dialogue.send(extra + content + b".\r\n")) == code


@pytest.mark.parametrize("in_command", [True, False])
async def test_scram(in_command):
    """A client that never sends its password: RFC 5802 in RFC 4954's clothes, with and without an initial response."""
    salt, stored_key, server_key, iterations = scramp.ScramMechanism("SCRAM-SHA-256").make_auth_info(PASSWORD, iteration_count=4096)
    credential = Credential("", verifier(PASSWORD), ScramKeys(salt, iterations, stored_key, server_key))
    services: Any = example_services()
    services.directory = Directory(services.directory.config, [mailbox("alice@example.com", credentials=(credential,))])
    dialogue = await ready(services=services, rules=SUBMISSIONS, tls=True)
    client = scramp.ScramClient(["SCRAM-SHA-256"], "alice@example.com", PASSWORD)
    first = base64.b64encode(client.get_client_first().encode()).decode()
    if in_command:
        reply = await dialogue.send(f"AUTH SCRAM-SHA-256 {first}\r\n")
    else:
        assert await dialogue.send("AUTH SCRAM-SHA-256\r\n") == "334 \r\n"
        reply = await dialogue.send(first + "\r\n")
    assert reply.startswith("334 ")
    client.set_server_first(base64.b64decode(reply[4:]).decode())
    reply = await dialogue.send(base64.b64encode(client.get_client_final().encode()).decode() + "\r\n")
    assert reply.startswith("334 ")
    client.set_server_final(base64.b64decode(reply[4:]).decode())
    assert code_of(await dialogue.send("\r\n")) == "235 2.7.0"
    assert dialogue.session.account_address == "alice@example.com"


@pytest.mark.case(16)
async def test_failed_logins_end_the_session():
    """Wrong passwords, aborted exchanges and bad base64 all count."""
    dialogue = await ready(rules=SUBMISSIONS, tls=True)
    wrong = "AUTH PLAIN " + base64.b64encode(b"\0alice@example.com\0wrong").decode()
    unknown = "AUTH PLAIN " + base64.b64encode(b"\0nobody@example.com\0wrong").decode()
    first, second = await dialogue.send(wrong + "\r\n"), await dialogue.send(unknown + "\r\n")
    assert first == second
    assert code_of(first) == "535 5.7.8"
    assert await dialogue.lines("AUTH PLAIN", "*") == ["334 ", "501 5.7.0 Authentication aborted"]
    assert code_of(await dialogue.send("AUTH PLAIN =%=\r\n")) == "501 5.5.2"
    reply = await dialogue.send("AUTH LOGIN\r\n" + "A" * 13_000 + "\r\n")
    assert [code_of(line) for line in reply.splitlines()] == ["334", "500 5.5.6", "421 4.7.0"]
    assert dialogue.wire.closed


@pytest.mark.case(23)
async def test_no_secret_in_any_log(capsys):
    """A log is read by more people than a mailbox."""
    dialogue = await ready(rules=SUBMISSIONS, tls=True)
    await dialogue.send("AUTH PLAIN " + base64.b64encode(b"\0alice@example.com\0open-sesame-wrong").decode() + "\r\n")
    await dialogue.send("AUTH LOGIN\r\nYWxpY2VAZXhhbXBsZS5jb20=\r\n" + base64.b64encode(PASSWORD.encode()).decode() + "\r\n")
    await dialogue.send("MAIL FROM:<alice@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n")
    await dialogue.send("From: alice@example.com\r\nSubject: very private\r\n\r\nvery private\r\n.\r\n")
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert "message" in text
    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), "open-sesame-wrong", "very private"):
        assert secret not in text


async def test_errors_and_idle_commands_are_counted():
    """A scanner that tries commands, and a client that says NOOP for ever, are told good-bye."""
    dialogue = await ready()
    replies = await dialogue.send("JUNK\r\n" * limits.ERRORS_MAX)
    assert [code_of(line) for line in replies.splitlines()][-2:] == ["500 5.5.1", "421 4.7.0"]
    assert dialogue.wire.closed
    dialogue = await ready()
    await dialogue.send("MAIL FROM:<a@b.example>\r\n")
    replies = await dialogue.send("NOOP\r\n" * (limits.IDLE_COMMANDS_MAX + 1))
    assert code_of(replies.splitlines()[-2]) == "250 2.0.0"
    assert code_of(replies.splitlines()[-1]) == "421 4.7.0"
    assert dialogue.wire.closed
    dialogue = await ready()
    await dialogue.send("MAIL FROM:<a@b.example>\r\n")
    replies = await dialogue.send("RCPT TO:<x@elsewhere.example>\r\n" * (limits.RECIPIENT_COMMANDS_MAX + 1))
    assert code_of(replies.splitlines()[-2]) == "550 5.7.1"
    assert code_of(replies.splitlines()[-1]) == "421 4.7.0"


async def test_many_recipients_are_no_idle_commands():
    """A message to hundreds of recipients does not use up what the next one may need."""
    dialogue = await ready()
    for _ in range(2):
        await dialogue.send("MAIL FROM:<a@b.example>\r\n")
        replies = await dialogue.send("RCPT TO:<alice@example.com>\r\n" * (limits.IDLE_COMMANDS_MAX + 50))
        while replies.count("\r\n") < limits.IDLE_COMMANDS_MAX + 50:
            await dialogue.settle()
            replies += dialogue.read()
        await dialogue.send("DATA\r\n")
        assert code_of(await dialogue.send("Subject: x\r\n\r\n.\r\n")) == "250 2.0.0"


async def test_transactions_are_limited_as_announced():
    """RFC 9422: MAILMAX is what the session really takes."""
    dialogue = await ready()
    for _ in range(limits.TRANSACTIONS_MAX // 50):
        await dialogue.send("MAIL FROM:<a@b.example>\r\nRSET\r\n" * 50)
    assert code_of(await dialogue.send("MAIL FROM:<a@b.example>\r\n")) == "421 4.7.0"


async def test_input_while_a_command_runs_is_bounded():
    """A client that sends on while we wait for the store is paused, and loses nothing."""
    dialogue = await ready()
    dialogue.store.gate = asyncio.Event()
    await dialogue.send(START)
    dialogue.session.data_received(b"Subject: x\r\n\r\n.\r\n")
    junk = b"NOOP " + b"x" * 1000 + b"\r\n"
    for _ in range(100):
        dialogue.session.data_received(junk)
    assert dialogue.wire.reading
    for _ in range(200):
        dialogue.session.data_received(junk)
    assert not dialogue.wire.reading
    dialogue.store.gate.set()
    await dialogue.settle()
    assert dialogue.wire.reading
    replies = dialogue.read().splitlines()
    assert replies[0].startswith("250 2.0.0 Ok: ")
    assert replies.count("250 2.0.0 Ok") == limits.IDLE_COMMANDS_MAX
    assert code_of(replies[-1]) == "421 4.7.0"


async def test_client_that_does_not_read_replies_is_not_read_from():
    """Replies must not pile up in memory."""
    dialogue = await ready()
    dialogue.wire.congested = True
    await dialogue.send("NOOP\r\n")
    assert not dialogue.wire.reading
    dialogue.session.data_received(b"NOOP\r\n")
    await dialogue.settle()
    assert dialogue.read() == ""
    dialogue.wire.congested = False
    dialogue.wire.room.set()
    await dialogue.settle()
    assert dialogue.wire.reading
    assert dialogue.read() == "250 2.0.0 Ok\r\n"


async def test_replies_to_one_read_leave_as_one_write():
    """RFC 2920 §3.2, and a system call less for each command."""
    dialogue = await ready()
    before = dialogue.wire.writes
    await dialogue.send("NOOP\r\nNOOP\r\nMAIL FROM:<a@b.example>\r\nRSET\r\n")
    assert dialogue.wire.writes == before + 1


@pytest.mark.case(15)
async def test_newcomers_time_out_sooner():
    """Who has not begun anything after a minute never will."""
    for after_s, closed in ((59, False), (61, True)):
        dialogue = Dialogue()
        dialogue.read()
        dialogue.session.sweep(dialogue.clock.time + after_s, pressed=False)
        assert dialogue.wire.closed is closed
        assert dialogue.read().startswith("421 4.4.2 ") is closed


@pytest.mark.case(15)
async def test_timeouts():
    """Idle sessions end after five minutes, sooner when sessions are scarce; never in a commit."""
    dialogue = await ready()
    await dialogue.send("MAIL FROM:<a@b.example>\r\n")
    dialogue.session.sweep(dialogue.clock.time + 299, pressed=False)
    assert not dialogue.wire.closed
    dialogue.session.sweep(dialogue.clock.time + 16, pressed=True)
    assert dialogue.wire.closed
    dialogue = await ready()
    await dialogue.send(START)
    dialogue.store.gate = asyncio.Event()
    dialogue.session.data_received(b"\r\n.\r\n")
    dialogue.session.sweep(dialogue.clock.time + 10_000, pressed=True)
    dialogue.store.gate.set()
    await dialogue.settle()
    assert code_of(dialogue.read()) == "250 2.0.0"
    dialogue.session.sweep(dialogue.clock.time + 3601, pressed=False)
    assert dialogue.wire.closed


async def test_shutdown_in_every_state():
    """RFC 5321 §3.8: 421 where nothing is under way, the answer first where something is."""
    for commands in ("", HELLO, HELLO + "MAIL FROM:<a@b.example>\r\n"):
        dialogue = Dialogue()
        await dialogue.send(commands)
        dialogue.session.shut_down()
        assert code_of(dialogue.read()) == "421 4.3.2"
        assert dialogue.wire.closed
    dialogue = await ready()
    await dialogue.send(START + "Subject: x\r\n")
    dialogue.session.shut_down()
    assert not dialogue.wire.closed
    reply = await dialogue.send("\r\n.\r\n")
    assert [code_of(line) for line in reply.splitlines()] == ["250 2.0.0", "421 4.3.2"]
    assert dialogue.wire.closed
    assert len(inbox(dialogue)) == 1


async def test_close_for_waits_for_the_answer():
    """A changed password does not cost a message that is just being stored its answer."""
    dialogue = await ready()
    await dialogue.send(START)
    dialogue.store.gate = asyncio.Event()
    dialogue.session.data_received(b"\r\n.\r\n")
    await dialogue.settle()
    dialogue.session.close_for(SHUTTING_DOWN)
    dialogue.store.gate.set()
    await dialogue.settle()
    assert [code_of(line) for line in dialogue.read().splitlines()] == ["250 2.0.0", "421 4.3.2"]


async def test_login_that_lost_its_right_to_send():
    """A mailbox that is suspended while its owner is connected sends no more."""
    dialogue = await ready(rules=SUBMISSIONS, tls=True)
    assert code_of(await dialogue.send(LOGIN)) == "235 2.7.0"
    assert dialogue.session.account_address == "alice@example.com"
    old = dialogue.services.directory
    dialogue.services.directory = Directory(old.config, [mailbox("alice@example.com", state=MailboxState.LOCKED)])
    assert code_of(await dialogue.send("MAIL FROM:<alice@example.com>\r\n")) == "530 5.7.0"
    assert dialogue.session.account_address is None


@pytest.mark.case(3)
async def test_plaintext_behind_starttls_is_forgotten():
    """In the session itself: pipelined commands, half lines, and input that came while the reply was being written."""
    dialogue = await ready()
    dialogue.session.data_received(b"STARTTLS\r\nMAIL FROM:<evil@b.example>\r\nRCPT")
    dialogue.session.data_received(b" TO:<alice@example.com>\r\n")
    await dialogue.settle()
    assert dialogue.read() == "220 2.0.0 Ready to start TLS\r\n"
    assert code_of(await dialogue.send("RCPT TO:<alice@example.com>\r\n")) == "503 5.5.1"
    assert dialogue.session.helo is None


PIECES = [
    b"EHLO a\r\n",
    b"HELO a\r\n",
    b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<a@b.example> SIZE=10 BODY=BINARYMIME\r\n",
    b"RCPT TO:<alice@example.com>\r\n",
    b"RCPT TO:<bob@example.com>\r\n",
    b"RCPT TO:<x@example.com>\r\n",
    b"DATA\r\n",
    b"BDAT 5\r\nabcde",
    b"BDAT 0 LAST\r\n",
    b"BDAT 3 LAST\r\n\r\n\n",
    b"Subject: x\r\n\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"AUTH PLAIN\r\n",
    b"*\r\n",
    b"STARTTLS\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"QUIT\r\n",
    b"VRFY x\r\n",
    b"\xff\xfe\r\n",
    LOGIN.encode(),
    b"From: alice@example.com\r\n\r\n",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)), max_size=25), st.booleans(), st.integers(0, 40))
def test_sessions_survive_anything(pieces, submission, step):
    """Fuzz: every reply is well formed, memory is given back, and no more messages are stored than 250s were said to content."""

    async def run() -> Any:
        dialogue = Dialogue(rules=SUBMISSIONS if submission else MX, tls=submission)
        text = dialogue.read() + await dialogue.send(b"".join(pieces), step)
        for line in text.split("\r\n")[:-1]:
            assert line[:3].isdigit()
            assert line[3] in " -"
        assert "internal" not in text.lower()
        stored = sum(len(account.messages) for account in dialogue.store.accounts.values()) + len(dialogue.store.transit)
        assert text.count("stored as") == stored
        dialogue.session.connection_lost()
        assert dialogue.shared.bodies.used_bytes == 0
        assert dialogue.shared.quota._in_flight == {}

    asyncio.run(run())

"""POP3 sessions as transcripts, over a maildrop that can be made to fail at will."""

from __future__ import annotations

import asyncio
import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient

from mailpod.errors import InDoubt, MailError, Refused, StoreUnavailable
from mailpod.limits import auth as auth_limits
from mailpod.limits import pop3 as limits
from tests.support.pop3 import EXPUNGED, PASSWORD, TLS, Bench, play

TWO = (b"Subject: one\r\n\r\nfirst\r\n.dot\r\n", b"Subject: two\r\n\r\nsecond line\r\n")

WHOLE = """
    S: +OK mx Postroom POP3 ready
    C: CAPA
    S: +OK Capabilities
    S: TOP
    S: UIDL
    S: RESP-CODES
    S: AUTH-RESP-CODE
    S: PIPELINING
    S: EXPIRE NEVER
    S: UTF8 USER
    S: LANG
    S: USER
    S: SASL PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS
    S: IMPLEMENTATION Postroom
    S: .
    C: STAT
    S: -ERR Not now: log in first
    C: UTF8
    S: +OK UTF8 enabled
    C: LANG
    S: +OK Languages
    S: en English
    S: i-default English
    S: .
    C: LANG en
    S: +OK en English
    C: LANG fr
    S: -ERR Unknown language
    C: PASS x
    S: -ERR USER first
    C: user Alice@Example.com
    S: +OK Send PASS
    C: PASS generated password
    S: +OK 2 messages (58 octets)
    C: USER bob@example.com
    S: -ERR Not now: already logged in
    C: STAT
    S: +OK 2 58
    C: LIST
    S: +OK 2 messages
    S: 1 29
    S: 2 29
    S: .
    C: LIST 2
    S: +OK 2 29
    C: LIST 3
    S: -ERR No such message
    C: UIDL
    S: +OK 2 messages
    S: 1 77.11
    S: 2 77.12
    S: .
    C: UIDL 1
    S: +OK 1 77.11
    C: RETR 1
    S: +OK 29 octets
    S: Subject: one
    S:
    S: first
    S: ..dot
    S: .
    C: TOP 2 0
    S: +OK
    S: Subject: two
    S:
    S: .
    C: RETR 0
    S: -ERR No such message
    C: RETR x
    S: -ERR Not a number
    C: RETR
    S: -ERR Wrong number of arguments
    C: XYZZY
    S: -ERR Unknown command
    C: NOOP
    S: +OK
    C: DELE 1
    S: +OK Message 1 marked as deleted
    C: DELE 1
    S: -ERR Message is marked as deleted
    C: RETR 1
    S: -ERR Message is marked as deleted
    C: STAT
    S: +OK 1 29
    C: LIST
    S: +OK 1 messages
    S: 2 29
    S: .
    C: RSET
    S: +OK 2 messages (58 octets)
    C: DELE 2
    S: +OK Message 2 marked as deleted
    C: QUIT
    S: +OK Bye, 1 messages removed
"""


@pytest.mark.parametrize("bytewise", [False, True])
async def test_whole_session(bytewise: bool) -> None:
    """Every command once, as a client sees it, also one byte at a time."""
    bench = Bench(*TWO)
    client = await play(bench, WHOLE, bytewise=bytewise)
    assert client.wire.closed
    assert bench.account.expunges == [[12]]
    assert list(bench.account.messages) == [11]
    assert not bench.shared.sessions


async def test_pipelining() -> None:
    """RFC 2449 §6.6: a client that sends everything at once gets all answers in order."""
    bench = Bench(*TWO)
    client = bench.connect()
    out = await client.say(
        f"USER alice@example.com\r\nPASS {PASSWORD}\r\nSTAT\r\nRETR 2\r\nDELE 1\r\nRETR 1\r\nLIST\r\nQUIT\r\nDELE 2\r\nQUIT\r\n"
    )
    assert out.count(b"+OK") == 7
    assert out.count(b"-ERR") == 1
    assert out.endswith(b"Bye, 1 messages removed\r\n")
    assert bench.account.expunges == [[11]]


@pytest.mark.case(4)
async def test_no_login_before_tls() -> None:
    """A password must not be asked for, or taken, in plaintext."""
    await play(
        Bench(),
        """
        S: +OK…
        C: USER alice@example.com
        S: -ERR Start TLS first (STLS)
        C: PASS generated password
        S: -ERR Start TLS first (STLS)
        C: AUTH PLAIN AGFsaWNlQGV4YW1wbGUuY29tAHg=
        S: -ERR Start TLS first (STLS)
        C: AUTH
        S: +OK
        S: .
        C: CAPA
        S: +OK Capabilities
        S: TOP
        S: UIDL
        S: RESP-CODES
        S: AUTH-RESP-CODE
        S: PIPELINING
        S: EXPIRE NEVER
        S: UTF8 USER
        S: LANG
        S: STLS
        S: IMPLEMENTATION Postroom
        S: .
        C: STLS
        S: +OK Begin TLS
        C: STLS
        S: -ERR TLS is already active
        C: USER alice@example.com
        S: +OK Send PASS
        """,
        tls=None,
    )


@pytest.mark.case(3)
async def test_stls_forgets_plaintext() -> None:
    """Commands injected behind STLS, and while it is negotiated, are not executed inside TLS; a name given before does not count."""
    client = Bench().connect(None)
    client.wire.upgrade = lambda: client.session.data_received(b"NOOP\r\nCAPA\r\n")
    out = await client.say("STLS\r\nUSER alice@example.com\r\nQUIT\r\n")
    assert out == b"+OK Begin TLS\r\n"
    assert await client.say(f"PASS {PASSWORD}\r\n") == b"-ERR USER first\r\n"


async def test_stls_after_utf8_is_refused() -> None:
    """RFC 6856 §2.1."""
    client = Bench().connect(None)
    await client.say("UTF8\r\n")
    assert (await client.say("STLS\r\n")).startswith(b"-ERR")


@pytest.mark.case(16)
async def test_wrong_logins_look_alike_and_end_the_session() -> None:
    """Known, unknown and locked names get one answer, with [AUTH]; after a few the session is over."""
    client = Bench().connect()
    answers = set()
    for name in ("alice@example.com", "nobody@example.com", "bob@example.com", "", "imap@example.com"):
        await client.say(f"USER {name or 'x'}\r\n")
        answers.add(await client.say("PASS wrong\r\n"))
    assert answers == {b"-ERR [AUTH] Authentication failed\r\n"}
    assert client.wire.closed


async def test_right_password_of_a_locked_mailbox() -> None:
    """Its owner is told something else than a stranger."""
    client = Bench().connect()
    for name in ("bob@example.com", "imap@example.com"):
        await client.say(f"USER {name}\r\n")
        assert (await client.say(f"PASS {PASSWORD}\r\n")).startswith(b"-ERR [AUTH] This mailbox may not")


@pytest.mark.case(16)
async def test_throttled_login_is_a_system_matter() -> None:
    """[SYS/TEMP], not [AUTH]: the client must not ask its user for another password."""
    bench = Bench()
    for _ in range(auth_limits.ACCOUNT_FREE_FAILURES):
        client = bench.connect()
        await client.say("USER alice@example.com\r\nPASS wrong\r\n")
    client = bench.connect()
    out = await client.say(f"USER alice@example.com\r\nPASS {PASSWORD}\r\n")
    assert b"-ERR [SYS/TEMP] Too many failed logins" in out


def b64(text: bytes | str) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


async def test_auth_plain_and_login() -> None:
    """RFC 5034, with and without initial response."""
    plain = b64(f"\0alice@example.com\0{PASSWORD}")
    for script in (
        [(f"AUTH PLAIN {plain}", b"+OK 0 messages")],
        [("AUTH plain", b"+ \r\n"), (plain, b"+OK 0 messages")],
        [("AUTH LOGIN", b"+ VXNlcm5hbWU6"), (b64("alice@example.com"), b"+ UGFzc3dvcmQ6"), (b64(PASSWORD), b"+OK 0 messages")],
    ):
        client = Bench().connect()
        for line, answer in script:
            assert (await client.say(line + "\r\n")).startswith(answer)
        assert client.session.account_address == "alice@example.com"
        assert client.session.idle_timeout_s >= 600  # RFC 1939 §3


@pytest.mark.parametrize("plus", [False, True])
async def test_auth_scram(plus: bool) -> None:
    """The server's signature comes as a challenge, which the client answers with an empty line."""
    mechanism = "SCRAM-SHA-256-PLUS" if plus else "SCRAM-SHA-256"
    scram = ScramClient([mechanism], "alice@example.com", PASSWORD, channel_binding=TLS.channel_binding if plus else None)
    client = Bench().connect()

    async def exchange(line: str) -> str:
        out = await client.say(line + "\r\n")
        assert out.startswith(b"+ ")
        return base64.b64decode(out[2:]).decode()

    scram.set_server_first(await exchange(f"AUTH {mechanism} {b64(scram.get_client_first())}"))
    scram.set_server_final(await exchange(b64(scram.get_client_final())))
    assert (await client.say("\r\n")).startswith(b"+OK 0 messages")


@pytest.mark.case(16)
@pytest.mark.parametrize(
    ("lines", "answer"),
    [
        (["AUTH PLAIN", "*"], b"-ERR Authentication cancelled\r\n"),
        (["AUTH PLAIN", "!!!"], b"-ERR Response is not base64\r\n"),
        (["AUTH PLAIN ???"], b"-ERR Initial response is not base64\r\n"),
        (["AUTH PLAIN ="], b"-ERR Malformed authentication exchange\r\n"),
        (["AUTH LOGIN", "*"], b"-ERR Authentication cancelled\r\n"),
        (["AUTH CRAM-MD5"], b"-ERR Unknown mechanism\r\n"),
        (["AUTH SCRAM-SHA-256", "QQ=="], b"-ERR Malformed authentication exchange\r\n"),
        (["AUTH PLAIN", "A" * 20_000], b"-ERR Line too long\r\n"),
        (["AUTH PLAIN x y z"], b"-ERR Wrong number of arguments\r\n"),
    ],
)
async def test_broken_authentication(lines: list[str], answer: bytes) -> None:
    """Aborted and malformed exchanges leave a session that takes commands again."""
    client = Bench().connect()
    for line in lines:
        out = await client.say(line + "\r\n")
    assert out == answer
    assert (await client.say("CAPA\r\n")).startswith(b"+OK")


@pytest.mark.case(22)
async def test_two_sessions_keep_their_views() -> None:
    """Two clients at once: no lock, numbers and UIDLs stay, both deleting is deleting once, both are told +OK."""
    bench = Bench(*TWO)
    first, second = await bench.login(), await bench.login()
    assert await first.say("DELE 1\r\nQUIT\r\n") == b"+OK Message 1 marked as deleted\r\n+OK Bye, 1 messages removed\r\n"
    assert await second.say("STAT\r\n") == b"+OK 2 58\r\n"
    assert await second.say("UIDL 2\r\n") == b"+OK 2 77.12\r\n"
    assert b"..dot" in await second.say("RETR 1\r\n")
    assert (await second.say("DELE 1\r\nDELE 2\r\nQUIT\r\n")).endswith(b"+OK Bye, 1 messages removed\r\n")
    third = await bench.login()
    assert await third.say("UIDL\r\n") == b"+OK 0 messages\r\n.\r\n"


async def test_uidl_is_the_same_in_the_next_session() -> None:
    """Clients that leave mail on the server would download everything again otherwise."""
    bench = Bench(*TWO)
    await (await bench.login()).say("DELE 1\r\nQUIT\r\n")
    assert await (await bench.login()).say("UIDL\r\n") == b"+OK 1 messages\r\n1 77.12\r\n.\r\n"


@pytest.mark.parametrize("end", ["timeout", "lost", "eof", "shut_down"])
async def test_nothing_is_deleted_without_quit(end: str) -> None:
    """RFC 1939 §6: a session that ends otherwise leaves the maildrop as it was."""
    bench = Bench(*TWO)
    client = await bench.login()
    await client.say("DELE 1\r\n")
    if end == "timeout":
        assert client.take() != b""
        client.session.timed_out()
        assert client.take() == b""  # §3: without a response
    elif end == "lost":
        client.session.connection_lost()
    elif end == "eof":
        client.session.eof_received()
    else:
        client.session.shut_down()
        assert client.take().endswith(b"-ERR [SYS/TEMP] The server is shutting down; connect again\r\n")
    await client.settle()
    assert bench.account.expunges == []
    assert client.wire.closed or end == "lost"
    assert not bench.shared.sessions


@pytest.mark.case(26)
@pytest.mark.parametrize(("fault", "code"), [(StoreUnavailable(), b"SYS/TEMP"), (InDoubt(), b"SYS/TEMP")])
async def test_failed_update_is_told(fault: MailError, code: bytes) -> None:
    """RFC 1939 §6: if not all messages could be removed, QUIT says -ERR; none is half deleted."""
    bench = Bench(*TWO)
    client = await bench.login()
    bench.account.expunge_fault = fault
    out = await client.say("DELE 1\r\nQUIT\r\n")
    assert b"\r\n-ERR [" + code + b"] Deleted messages not removed: " in out
    assert client.wire.closed


async def test_update_goes_on_when_the_client_is_gone() -> None:
    """QUIT was heard: a connection lost while it commits must not lose the deletion."""
    bench = Bench(*TWO)
    client = await bench.login()
    client.session.data_received(b"DELE 1\r\nQUIT\r\n")
    await asyncio.sleep(0)
    client.session.connection_lost()
    for _ in range(5):
        await asyncio.sleep(0)
    assert list(bench.account.messages) == [12]


@pytest.mark.case(26)
async def test_store_faults_are_answered() -> None:
    """The bucket does not answer: -ERR [SYS/TEMP] at login and at RETR, the session lives; nothing looks like an empty maildrop."""
    bench = Bench(*TWO)
    bench.store_fault = StoreUnavailable("down")
    client = bench.connect()
    out = await client.say(f"USER alice@example.com\r\nPASS {PASSWORD}\r\n")
    assert b"-ERR [SYS/TEMP] Mail storage does not answer" in out
    bench.store_fault = None
    assert b"+OK 2 messages" in await client.say(f"USER alice@example.com\r\nPASS {PASSWORD}\r\n")
    bench.account.faults[0] = (0, StoreUnavailable("down"))
    bench.account.faults[1] = (0, Refused(EXPUNGED))
    assert (await client.say("RETR 1\r\n")).startswith(b"-ERR [SYS/TEMP] Mail storage")
    assert (await client.say("TOP 1 1\r\n")).startswith(b"-ERR [SYS/TEMP] Mail storage")
    assert await client.say("RETR 2\r\n") == b"-ERR [SYS/PERM] The message is gone\r\n"
    assert await client.say("NOOP\r\n") == b"+OK\r\n"


@pytest.mark.parametrize("command", ["RETR 1", "TOP 1 999999"])
async def test_fault_in_the_middle_cuts_the_connection(command: str) -> None:
    """Half a message must not look like a whole one: no final dot, the connection ends."""
    bench = Bench(b"x" * 3_000_000, b"y\r\n")
    client = await bench.login()
    bench.account.faults[0] = (limits.READ_PIECE_BYTES, StoreUnavailable("down"))
    out = await client.say(command + "\r\nNOOP\r\n")
    assert out.startswith(b"+OK")
    assert not out.endswith(b"\r\n.\r\n")
    assert client.wire.closed
    assert b"+OK\r\n" not in out[10:]


async def test_large_message_in_pieces_with_flow_control() -> None:
    """A message of many pieces arrives byte for byte; while the client does not read, no more than two pieces are held."""
    body = b"".join(b".%07d line\r\n" % i for i in range(200_000))
    bench = Bench(body)
    client = await bench.login()
    client.wire.slow = True
    await client.say("RETR 1\r\n")
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.account.folder is not None
    assert len(bench.account.folder.reads) == 2  # one sent, one read ahead
    client.wire.slow = False
    client.wire.room.set()
    await client.settle()
    out = client.take()
    head, _, text = out.partition(b"\r\n")
    assert head == b"+OK %d octets" % len(body)
    assert text.endswith(b"\r\n.\r\n")
    assert text[:-3].replace(b"\r\n..", b"\r\n.")[1:] == body


async def test_download_that_is_cut_stops_reading() -> None:
    """A client that vanishes must not keep the pod fetching its messages."""
    bench = Bench(b"x" * 10_000_000)
    client = await bench.login()
    client.wire.slow = True
    await client.say("RETR 1\r\n")
    client.session.connection_lost()
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.account.folder is not None
    assert len(bench.account.folder.reads) <= 2
    assert client.session._task is None or client.session._task.done()


async def test_read_ahead() -> None:
    """A client that goes through its maildrop waits for the bucket once, not once a message; every byte is right."""
    messages = [b"n: %d\r\n\r\n%s\r\n" % (i, b"x" * (i * 37 % 5000)) for i in range(300)]
    bench = Bench(*messages)
    client = await bench.login()
    for i, message in enumerate(messages, 1):
        assert await client.say(f"RETR {i}\r\n") == b"+OK %d octets\r\n%s.\r\n" % (len(message), message)
    folder = bench.account.folder
    assert folder is not None
    assert len(folder.reads) < 10
    assert [row for rows in folder.many for row in rows] == sorted({row for rows in folder.many for row in rows})  # none twice


async def test_read_ahead_with_gaps_and_faults() -> None:
    """Deleted, large, reclaimed and repeated messages on the way change nothing in what the client gets."""
    messages = [b"m%d\r\n" % i for i in range(20)]
    messages[7] = b"L" * 1_000_000 + b"\r\n"
    bench = Bench(*messages)
    bench.account.faults[9] = (0, Refused(EXPUNGED))
    client = await bench.login()
    await client.say("DELE 5\r\n")
    for number in [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 12, 2, 3, 20, 19]:
        out = await client.say(f"RETR {number}\r\n")
        if number == 10:
            assert out.startswith(b"-ERR")
        else:
            body = messages[number - 1]
            assert out == b"+OK %d octets\r\n%s.\r\n" % (len(body), body), number


async def test_long_listings() -> None:
    """A maildrop of many thousands is listed in parts that give others their turn."""
    bench = Bench(*[b"x\r\n"] * 10_000)
    client = await bench.login()
    await client.say("DELE 5000\r\n")
    out = await client.say("UIDL\r\nLIST\r\n")
    lines = out.split(b"\r\n")
    assert lines[0] == b"+OK 9999 messages"
    assert lines[1:10_000] == [b"%d 77.%d" % (i, i + 10) for i in range(1, 10_001) if i != 5000]
    assert lines[10_000] == b"."
    assert lines[10_002:20_001] == [b"%d 3" % i for i in range(1, 10_001) if i != 5000]
    assert lines[20_001:] == [b".", b""]


@pytest.mark.case(10)
async def test_bad_commands_end_the_session() -> None:
    """A client that speaks something else is let go of soon."""
    client = Bench().connect()
    out = await client.say("GET / HTTP/1.1\r\n" * 100)
    assert out.count(b"-ERR") == limits.BAD_COMMANDS_MAX
    assert client.wire.closed


@pytest.mark.case(15)
async def test_slow_typist_is_cut() -> None:
    """A byte now and then keeps no connection open before login."""
    bench = Bench()
    client = bench.connect()
    for _ in range(20):
        client.session.data_received(b"x")
        bench.clock.time += 55
    assert client.wire.closed


@pytest.mark.case(10)
async def test_input_behind_a_running_command_is_bounded() -> None:
    """While a command runs, the client is not read once enough waits; afterwards all is answered."""
    bench = Bench(b"x" * 1_000_000)
    client = await bench.login()
    client.wire.slow = True
    await client.say(b"RETR 1\r\n" + b"NOOP\r\n" * 5000)
    was_paused = client.wire.paused
    client.wire.slow = False
    client.wire.room.set()
    for _ in range(100):
        await client.settle()
    assert (was_paused, client.wire.paused) == (True, False)
    assert client.take().count(b"+OK\r\n") == 5000


async def test_sessions_of_one_account_are_bounded() -> None:
    """One mailbox can't take the pod's memory; when one session ends, another may come."""
    bench = Bench()
    clients = [await bench.login() for _ in range(limits.SESSIONS_PER_ACCOUNT_MAX)]
    late = bench.connect()
    out = await late.say(f"USER alice@example.com\r\nPASS {PASSWORD}\r\n")
    assert b"-ERR [IN-USE]" in out
    await clients[0].say("QUIT\r\n")
    assert b"+OK 0 messages" in await late.say(f"USER alice@example.com\r\nPASS {PASSWORD}\r\n")


async def test_shut_down_waits_for_the_command() -> None:
    """Draining lets a download end before it says goodbye."""
    bench = Bench(b"x" * 1_000_000)
    client = await bench.login()
    client.wire.slow = True
    await client.say(b"RETR 1\r\n")
    client.session.shut_down()
    assert bench.shared.sessions
    client.wire.slow = False
    client.wire.room.set()
    await client.settle()
    assert client.take().endswith(b"\r\n.\r\n-ERR [SYS/TEMP] The server is shutting down; connect again\r\n")
    assert client.wire.closed is True


FUZZ = (
    b"USER alice@example.com\r\n;PASS generated password\r\n;RETR 1\r\n;TOP 1 1\r\n;DELE 2\r\n;AUTH PLAIN\r\n;*\r\n;"
    b"STLS\r\n;RSET\r\n;QUIT\r\n;"
    b"UIDL\r\n;\0\xff\r\n;\r\n;LIST 9\r\n;CAPA\r\n;RE;USER alice@example.com\r\nPASS generated password\r\n"
).split(b";")


@given(
    st.lists(
        st.sampled_from(FUZZ) | st.binary(max_size=20),
        max_size=15,
    )
)
@settings(max_examples=100, deadline=None)
async def test_any_input_gets_responses_and_nothing_else(pieces: list[bytes]) -> None:
    """Fuzz: whatever the order, every line of a response is one, and the only thing that deletes is QUIT after DELE."""
    bench = Bench(*TWO)
    client = bench.connect()
    for piece in pieces:
        await client.say(piece)
    assert b"Internal error" not in client.wire.out
    assert bench.account.expunges in ([], [[12]])
    client.session.connection_lost()
    await asyncio.sleep(0)
    assert not bench.shared.sessions

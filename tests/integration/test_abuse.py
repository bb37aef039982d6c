"""Hostile clients at real pods over real sockets: what they send is bounded in time, processor and memory, and others do not notice.

The attackers' addresses are of 127.0.0.0/8, each test's own, so that one test's brakes and caps do not hold up another's clients.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import imaplib
import poplib
import select
import smtplib
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator

import psutil
import pytest

from mailpod.adapters.objects import Credentials
from mailpod.contract import ListenerName, StorageConfig
from tests.support.pods import PASSWORD, Fleet, Pod, mailbox
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.timeout(120)

ALICE, BOB, CAROL = "alice@example.com", "bob@example.com", "carol@example.com"
QUOTA = 1024 * 1024
GUESS = "guess-of-a-stranger"  # begins all wrong passwords, so that the logs can be searched for it
SMTP, SUBMISSION, SUBMISSIONS = ListenerName.SMTP, ListenerName.SUBMISSION, ListenerName.SUBMISSIONS
IMAP, IMAPS, POP3, POP3S = ListenerName.IMAP, ListenerName.IMAPS, ListenerName.POP3, ListenerName.POP3S


@pytest.fixture(scope="module")
def fleet(seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two pods that log all they have to say; carol's mailbox is small."""
    storage = StorageConfig(bucket="mail", endpoint=seaweed.endpoint, force_path_style=True, prefix="abuse")
    boxes = [mailbox(ALICE), mailbox(BOB), mailbox(CAROL, quota_bytes=QUOTA)]
    keys = Credentials(seaweed.access_key, seaweed.secret_key)
    made = Fleet.create(tmp_path_factory.mktemp("abuse"), storage, keys, mailboxes=boxes, log_level="Debug")
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Line:
    """A client that says what it likes."""

    def __init__(self, pod: Pod, listener: ListenerName, *, source: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", pod.ports[listener]), 30, (source, 0))
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self._buffer = b""

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def line(self) -> bytes:
        """The next line; b"" when the pod has closed."""
        while b"\n" not in self._buffer:
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError):
                return b""
            if not data:
                return b""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def push(self, data: bytes) -> None:
        """Send as much as the pod takes before it closes."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError, TimeoutError):
            self.socket.sendall(data)

    def until(self, prefix: bytes) -> bytes:
        """The line that begins with `prefix`; b"" when the pod closes before."""
        while (line := self.line()) and not line.startswith(prefix):
            pass
        return line

    def imap(self, tag: bytes, command: bytes) -> bytes:
        """An IMAP command's tagged answer."""
        self.push(tag + b" " + command + b"\r\n")
        return self.until(tag + b" ")


def _imap(fleet: Fleet, user: str, *, pod: int = 0, source: str = "127.0.0.1") -> Line:
    client = Line(fleet.pods[pod], IMAPS, source=source, context=fleet.tls_context())
    client.line()
    answer = client.imap(b"L", f'LOGIN {user} "{PASSWORD}"'.encode())
    assert answer.startswith(b"L OK"), answer
    return client


def _process(pod: Pod) -> psutil.Process:
    assert pod.process is not None
    return psutil.Process(pod.process.pid)


def _cpu_s(pod: Pod, action: Callable[[], None]) -> float:
    """Processor seconds that the pod takes for `action`."""
    before = _process(pod).cpu_times()
    action()
    after = _process(pod).cpu_times()
    return float(after.user - before.user + after.system - before.system)


def _new_login_s(fleet: Fleet, source: str) -> float:
    """How long somebody else takes to log in and look into the mailbox."""
    started = time.monotonic()
    with _imap(fleet, BOB, source=source) as client:
        assert client.imap(b"S", b"SELECT INBOX").startswith(b"S OK")
    return time.monotonic() - started


# ---- case 5 ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.case(5)
def test_a_command_line_of_a_mebibyte_costs_no_time(fleet: Fleet):
    """One packet storm of a stranger would stop everybody's mail."""
    pod = fleet.pods[0]
    long = b"A" * (1024 * 1024)

    def attack() -> None:
        for listener, accepted in ((SMTP, b"500 "), (IMAP, b"* BYE"), (POP3, b"-ERR")):
            with Line(pod, listener, source="127.0.5.1") as client:
                assert client.line()
                client.push(long + b"\r\n")
                # What came first is the refusal, or the connection was cut while the rest was on its way.
                answer = client.line()
                assert answer == b"" or answer.startswith((accepted, b"* BAD", b"421 ")), answer
        with _imap(fleet, ALICE, source="127.0.5.1") as client:
            answer = client.imap(b"a", b"SEARCH SUBJECT " + long + long)
            assert answer == b"" or answer.startswith((b"a BAD", b"a NO")), answer

    used = _cpu_s(pod, attack)
    assert used < 1.0
    print(f"4 lines of 1-2 MiB: {used:.2f} s CPU")


@pytest.mark.case(5)
@pytest.mark.parametrize(
    "header",
    [
        b"To: " + b",\r\n ".join(b"p%06d@example.org" % number for number in range(100_000)) + b"\r\n",
        b"".join(b"To: p%06d@example.org\r\n" % number for number in range(100_000)),
        b"X-Filler: " + b"x" * 988 + b"\r\n",  # × 50,000
    ],
    ids=["100,000 addresses", "100,000 address headers", "50 MB of headers"],
)
def test_a_flood_of_headers_is_refused_and_costs_no_time(fleet: Fleet, header: bytes):
    """Parsing one message would take the pod's processor for minutes."""
    pod = fleet.pods[0]
    repeat = 50_000 if len(header) < 2000 else 1
    flood = header * repeat

    def attack() -> None:
        with Line(pod, SMTP, source="127.0.5.2") as client:
            client.until(b"220 ")
            for command in (b"EHLO client.example.org", b"MAIL FROM:<x@example.org>", b"RCPT TO:<bob@example.com>"):
                client.push(command + b"\r\n")
                assert client.until(b"250 ")
            client.push(b"DATA\r\n")
            assert client.until(b"354 ")
            client.push(b"Subject: flood\r\n" + flood + b"\r\nbody\r\n.\r\n")
            assert client.line().startswith((b"552 5.3.4", b"550 5.6.0", b"554 5.6.0"))
            client.push(b"NOOP\r\n")
            assert client.until(b"250 ")  # the connection is of use after it

    used = _cpu_s(pod, attack)
    assert used < 1.0
    print(f"{len(flood):,} bytes of headers: {used:.2f} s CPU")


# ---- case 10 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.case(10)
def test_huge_literals_take_no_memory(fleet: Fleet):
    """A few strangers, or one customer, would have the kernel kill the pod for want of memory."""
    pod = fleet.pods[0]
    before = _process(pod).memory_info().rss
    peak = before

    def stranger(number: int) -> bytes:
        with Line(pod, IMAP, source="127.0.10.1") as client:
            client.line()
            client.push(b"a LOGIN {4294967295+}\r\n" if number % 2 else b"a LOGIN " + b"{1+}\r\nx " * 10_000 + b"\r\n")
            for _ in range(8):
                client.push(b"x" * (1024 * 1024))
            answer = client.line()
            return answer or b"closed"

    def customer(number: int) -> bytes:
        command = (b"APPEND INBOX {4294967295+}", b"SEARCH TEXT {4294967295+}", b"SEARCH " + b"TEXT {1+}\r\nx " * 10_000 + b"ALL")[
            number % 3
        ]
        with _imap(fleet, BOB, source="127.0.10.2") as client:
            client.push(b"a " + command + b"\r\n")
            for _ in range(8):
                client.push(b"x" * (1024 * 1024))
            return client.line() or b"closed"

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        futures = [pool.submit(stranger, number) for number in range(12)] + [pool.submit(customer, number) for number in range(12)]
        while not all(future.done() for future in futures):
            peak = max(peak, _process(pod).memory_info().rss)
            time.sleep(0.02)
    answers = [future.result() for future in futures]
    assert all(answer == b"closed" or answer.startswith((b"a BAD", b"a NO", b"* BYE", b"* BAD")) for answer in answers), answers
    assert any(answer != b"closed" for answer in answers)
    # A literal that may be sent has to wait for its go-ahead, and one that may not leaves the connection usable.
    with _imap(fleet, BOB, source="127.0.10.2") as client:
        assert client.imap(b"b", b"APPEND INBOX {4294967295}").startswith(b"b NO [TOOBIG]")
        assert client.imap(b"c", b"NOOP").startswith(b"c OK")
    print(f"24 clients sent 192 MiB behind literals: memory {before >> 20} -> {peak >> 20} MiB")
    assert peak - before < 64 * 1024 * 1024


# ---- case 13 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.case(13)
def test_fifty_appends_at_once_at_the_edge_of_the_quota(fleet: Fleet):
    """Fifty connections over two pods would fill a mailbox to many times its size; or a refused APPEND would leave half of itself."""
    size = 60_000
    body = b"Subject: edge\r\n\r\n" + b"x" * 76 + b"\r\n"
    body += (b"y" * 76 + b"\r\n") * ((size - len(body)) // 78)
    filler = b"Subject: filler\r\n\r\n" + (b"z" * 76 + b"\r\n") * (850_000 // 78)
    with _imap(fleet, CAROL) as client:
        assert client.imap(b"a", b"APPEND INBOX {%d+}\r\n%b" % (len(filler), filler)).startswith(b"a OK")
    clients = [_imap(fleet, CAROL, pod=number % 2) for number in range(50)]
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda one: one.imap(b"a", b"APPEND INBOX {%d+}\r\n%b" % (len(body), body)), clients))
    for one in clients:
        one.socket.close()
    accepted = sum(answer.startswith(b"a OK") for answer in answers)
    assert all(answer.startswith((b"a OK", b"a NO [OVERQUOTA]")) for answer in answers), answers
    assert accepted >= 1
    with _imap(fleet, CAROL, pod=1) as client:
        # Now nothing fits; of two messages of which the first would not, neither is there; one cut off in the middle is not there.
        assert client.imap(b"b", b"APPEND INBOX {%d+}\r\n%b {%d+}\r\n%b" % (len(body), body, 20, b"Subject: small\r\n\r\nx\r")).startswith(
            b"b NO"
        )
        client.push(b"c APPEND Drafts {%d+}\r\n%b" % (len(body), body[:1000]))
    with _imap(fleet, CAROL, pod=0) as client:
        client.push(b"d STATUS INBOX (MESSAGES SIZE)\r\n")
        status = client.until(b"* STATUS")
        assert b"MESSAGES %d " % (accepted + 1) in status, (status, accepted)
        used = int(status.split(b"SIZE ")[1].rstrip(b")\r\n"))
        assert used == len(filler) + accepted * len(body)
        assert used <= QUOTA + len(body)
        client.push(b"e STATUS Drafts (MESSAGES)\r\n")
        assert b"MESSAGES 0" in client.until(b"* STATUS")
    print(f"N=50 accepted={accepted} used={used} quota={QUOTA}")


# ---- case 15 ---------------------------------------------------------------------------------------------------------------------


def _open(pod: Pod, listener: ListenerName, source: str, count: int) -> list[socket.socket]:
    made = []
    for _ in range(count):
        one = socket.socket()
        one.bind((source, 0))
        one.connect(("127.0.0.1", pod.ports[listener]))
        made.append(one)
    return made


def _closed(sockets: list[socket.socket]) -> int:
    """How many the pod has closed, whatever it said before."""
    poll = select.poll()
    for one in sockets:
        one.setblocking(False)
        poll.register(one, select.POLLIN)
    count = 0
    ready = {number for number, _ in poll.poll(0)}
    for one in sockets:
        if one.fileno() in ready:
            try:
                while data := one.recv(4096):
                    pass
                count += data == b""
            except BlockingIOError:
                pass
            except ConnectionResetError:
                count += 1
    return count


@pytest.mark.case(15)
def test_slow_and_many_connections_do_not_keep_others_out(fleet: Fleet):
    """Somebody with a laptop and no bandwidth could keep a company from its mail."""
    pod = fleet.pods[0]
    before = _process(pod).memory_info().rss
    with contextlib.ExitStack() as stack:
        # Handshakes that never end, more than enough for the pod to see a flood: they give way after 4 to 8 s.
        unfinished = _open(pod, IMAPS, "127.0.15.1", 1200) + _open(pod, POP3S, "127.0.15.2", 300)
        began = time.monotonic()
        # Clients that say a byte now and then, and more of them than one address may have.
        slow = _open(pod, IMAP, "127.0.15.3", 500) + [one for number in range(5) for one in _open(pod, SMTP, f"127.0.15.1{number}", 90)]
        greedy = _open(pod, IMAP, "127.0.15.4", 2050)
        greedy_smtp = _open(pod, SMTP, "127.0.15.5", 130)
        for one in (*unfinished, *slow, *greedy, *greedy_smtp):
            stack.callback(one.close)
        logins = [_new_login_s(fleet, "127.0.15.9")]
        gone = 0
        while (seconds := time.monotonic() - began) < 5 or (gone < 500 and seconds < 20):
            for one in slow:
                with contextlib.suppress(OSError):
                    one.send(b"N")
            logins.append(_new_login_s(fleet, "127.0.15.9"))
            time.sleep(0.5)
            gone = _closed(unfinished)
        refused, refused_smtp = _closed(greedy), _closed(greedy_smtp)
        rss = _process(pod).memory_info().rss
    print(
        f"N={len(unfinished) + len(slow) + len(greedy) + len(greedy_smtp)} login max {max(logins):.2f} s; handshakes cut {gone}; "
        f"refused {refused} + {refused_smtp}; memory {before >> 20} -> {rss >> 20} MiB"
    )
    assert max(logins) < 2.0
    assert refused == 50
    assert refused_smtp == 30
    assert gone >= 500  # all above the number that counts as a flood
    assert rss - before < 300 * 1024 * 1024
    assert _new_login_s(fleet, "127.0.15.9") < 2.0


# ---- case 16 ---------------------------------------------------------------------------------------------------------------------


def _refusal_s(client: Line, user: str, number: int) -> tuple[bytes, float]:
    started = time.monotonic()
    answer = client.imap(b"t", f'LOGIN {user} "{GUESS}-{number}"'.encode())
    return answer, time.monotonic() - started


@pytest.mark.case(16)
def test_known_and_unknown_names_are_refused_alike(fleet: Fleet):
    """Spammers would learn which addresses exist."""
    answers, times = set(), []
    for number, user in enumerate((ALICE, "nobody@example.com", "nobody@example.net")):
        with Line(fleet.pods[0], IMAPS, source="127.0.16.1", context=fleet.tls_context()) as client:
            client.line()
            answer, seconds = _refusal_s(client, user, number)
            answers.add(answer)
            times.append(seconds)
    assert len(answers) == 1, answers
    assert max(times) - min(times) < 0.25, times
    print(f"known, unknown, foreign: {[round(one, 2) for one in times]} s, {answers}")


@pytest.mark.case(16)
def test_nonsense_in_sasl_is_refused_and_harmless(fleet: Fleet):
    """A client that gives up in the middle, or sends no base64, would hang or crash the session."""
    pod, context = fleet.pods[0], fleet.tls_context()
    with Line(pod, SUBMISSIONS, source="127.0.16.2", context=context) as client:
        client.until(b"220 ")
        client.push(b"EHLO client.example.org\r\n")
        client.until(b"250 ")
        for first, second, code in (
            (b"AUTH PLAIN", b"*", b"501 "),
            (b"AUTH PLAIN", b"=not base64=", b"501 "),
            (b"AUTH LOGIN", b"*", b"501 "),
        ):
            client.push(first + b"\r\n")
            assert client.line().startswith(b"334 ")
            client.push(second + b"\r\n")
            assert (answer := client.line()).startswith(code), answer
        client.push(b"AUTH PLAIN " + base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()) + b"\r\n")
        assert client.line().startswith(b"235 ")
    with Line(pod, IMAPS, source="127.0.16.2", context=context) as client:
        client.line()
        for tag, second in ((b"a", b"*"), (b"b", b"=not base64=")):
            client.push(tag + b" AUTHENTICATE PLAIN\r\n")
            assert client.line().startswith(b"+")
            client.push(second + b"\r\n")
            assert client.until(tag + b" ").startswith((tag + b" BAD", tag + b" NO"))
            assert client.imap(tag + b"n", b"NOOP").startswith(tag + b"n OK")
    with Line(pod, POP3S, source="127.0.16.2", context=context) as client:
        client.line()
        for second in (b"*", b"=not base64="):
            client.push(b"AUTH PLAIN\r\n")
            assert client.line().startswith(b"+")
            client.push(second + b"\r\n")
            assert client.line().startswith(b"-ERR")


@pytest.mark.case(16)
def test_brute_force_from_this_very_host_is_slowed_down(fleet: Fleet):
    """A tunnel, a proxy or a neighbour in the pod would be free to guess; and guessing would lock the owner out."""
    pod, context = fleet.pods[1], fleet.tls_context()
    with _imap(fleet, BOB, pod=1, source="127.0.16.7"):
        pass  # the owner, from where he always comes
    guessed = 0
    slow_down: list[str] = []

    def by_imap(number: int) -> str:
        with Line(pod, IMAPS, context=context) as client:
            client.line()
            return _refusal_s(client, BOB, number)[0].decode()

    def by_pop3(number: int) -> str:
        client = poplib.POP3_SSL("127.0.0.1", pod.ports[POP3S], context=context, timeout=30)
        try:
            client.user(BOB)
            client.pass_(f"{GUESS}-{number}")
        except poplib.error_proto as error:
            return str(error)
        finally:
            client.close()
        return "in"

    def by_smtp(number: int) -> str:
        with smtplib.SMTP_SSL(
            "127.0.0.1", pod.ports[SUBMISSIONS], local_hostname="client.example.org", context=context, timeout=30
        ) as client:
            try:
                client.login(BOB, f"{GUESS}-{number}")
            except smtplib.SMTPAuthenticationError as error:
                return f"{error.smtp_code} {error.smtp_error!r}"
            except smtplib.SMTPException as error:
                return repr(error)
        return "in"

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for answer in pool.map(lambda number: (by_imap, by_pop3, by_smtp)[number % 3](number), range(60)):
            assert answer != "in"
            if "UNAVAILABLE" in answer or "SYS/TEMP" in answer or "LOGIN-DELAY" in answer or answer.startswith(("454", "421")):
                slow_down.append(answer)
            else:
                guessed += 1
    print(f"60 guesses from 127.0.0.1: {guessed} were checked, {len(slow_down)} told to wait, e.g. {slow_down[:3]}")
    # 8 at the account and 20 from the address are free; those under way at that moment may be checked too.
    assert guessed <= 20 + 6
    # Not even the right password, for the one who guesses; but the owner from his own address comes in at once.
    with Line(pod, IMAPS, context=context) as client:
        client.line()
        assert not client.imap(b"a", f'LOGIN {BOB} "{PASSWORD}"'.encode()).startswith(b"a OK")
    started = time.monotonic()
    with _imap(fleet, BOB, pod=1, source="127.0.16.7"):
        assert time.monotonic() - started < 2.0


# ---- case 23 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.case(23)
def test_old_tls_gets_no_session(fleet: Fleet):
    """A person in the middle could have both sides speak a version that he can read."""
    pod = fleet.pods[0]
    old = fleet.tls_context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    for listener in (SUBMISSIONS, IMAPS, POP3S):
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version|unsupported.protocol"):
            Line(pod, listener, source="127.0.23.1", context=old)
    for listener, command in ((SMTP, b"STARTTLS\r\n"), (SUBMISSION, b"STARTTLS\r\n"), (IMAP, b"a STARTTLS\r\n"), (POP3, b"STLS\r\n")):
        with Line(pod, listener, source="127.0.23.1") as client:
            client.line()
            if listener in (SMTP, SUBMISSION):
                client.push(b"EHLO client.example.org\r\n")
                client.until(b"250 ")
            client.push(command)
            assert client.line().startswith((b"220", b"a OK", b"+OK"))
            with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version|unsupported.protocol"):
                old.wrap_socket(client.socket, server_hostname="localhost")


def _certificate(pod: Pod, listener: ListenerName) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Line(pod, listener, source="127.0.23.2", context=context) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        return client.socket.getpeercert(binary_form=True) or b""


@pytest.mark.case(23)
def test_a_new_certificate_drops_no_session(fleet: Fleet):
    """Every renewal would cut everybody's connections, in the middle of a message."""
    pod, context = fleet.pods[0], fleet.tls_context()
    before = {listener: _certificate(pod, listener) for listener in (IMAPS, POP3S, SUBMISSIONS)}
    with _imap(fleet, ALICE, source="127.0.23.3") as imap, Line(pod, SUBMISSIONS, source="127.0.23.3", context=context) as smtp:
        assert imap.imap(b"a", b"SELECT INBOX").startswith(b"a OK")
        smtp.until(b"220 ")
        smtp.push(b"EHLO client.example.org\r\nAUTH PLAIN " + base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()) + b"\r\n")
        assert smtp.until(b"235 ")
        smtp.push(f"MAIL FROM:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\nDATA\r\n".encode())
        assert smtp.until(b"354 ")
        smtp.push(f"From: {ALICE}\r\nSubject: half a message\r\n".encode())
        fleet.issue_certificate()
        fleet.write()
        deadline = time.monotonic() + 20
        while any(_certificate(pod, listener) == old for listener, old in before.items()):
            assert time.monotonic() < deadline, "the pod still shows the old certificate"
            time.sleep(0.2)
        smtp.push(b"\r\nthe other half\r\n.\r\n")
        assert smtp.line().startswith(b"250 ")
        assert imap.imap(b"b", b"NOOP").startswith(b"b OK")
    assert _new_login_s(fleet, "127.0.23.3") < 2.0


@pytest.mark.case(23)
def test_no_secret_of_all_this_is_in_any_log(fleet: Fleet):
    """Whoever may read logs could read mail. Comes last: the logs hold the traces of everything above."""
    guess = imaplib.IMAP4_SSL("127.0.0.1", fleet.pods[0].ports[IMAPS], ssl_context=fleet.tls_context(), timeout=30)
    with guess, pytest.raises(imaplib.IMAP4.error):
        guess.login(f"{GUESS}-as-a-name", f"{GUESS}-0")  # people type their password where the name belongs
    secrets = {PASSWORD.encode(), GUESS.encode(), fleet.credentials.secret_access_key.encode(), b"half a message", b"the other half"}
    for text in (f"\0{ALICE}\0{PASSWORD}", PASSWORD, f"{GUESS}-0"):
        secrets.add(base64.b64encode(text.encode()))
    for pod in fleet.pods:
        secrets.add((pod.config_dir / "fleet.key").read_bytes().strip())
        secrets.update(line for line in (pod.config_dir / "tls.key").read_bytes().splitlines() if len(line) > 40)
    for box in fleet.mailboxes:
        secrets.update(credential.verifier.encode() for credential in box.credentials)
    for pod in fleet.pods:
        seen = pod.log.read_bytes() + pod.get("/metrics")[1].encode()
        assert ALICE.encode() in seen or BOB.encode() in seen  # there is something to be searched
        assert not [secret for secret in secrets if secret in seen]
        assert b"Traceback" not in seen

"""Who gets in, who does not, and what both look like from outside."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from argon2 import low_level
from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient, ScramException

from mailpod.auth import verifiers
from mailpod.auth.authenticator import Authenticator, LoginResult, Outcome, initial_response, sasl_decode
from mailpod.auth.sasl import SaslExchange
from mailpod.auth.saslprep import saslprep
from mailpod.auth.scram import scram_keys
from mailpod.auth.throttle import Throttle, address_key
from mailpod.contract import Credential, DomainConfig, MailboxConfig, MailboxState, PodConfig, Protocol, StorageConfig
from mailpod.directory.directory import Directory
from mailpod.limits import auth as limits

IMAP, POP3, SUBMISSION = Protocol.IMAP, Protocol.POP3, Protocol.SUBMISSION
PASSWORD = "correct horse"
GENERATED = "Q29ycmVjdEhvcnNlQmF0"
# Cheap ones, so that hundreds of checks take no time; one test below looks at the true cost.
CHEAP_KIB = 256


def argon2(password: str, salt: bytes = b"s" * 16) -> str:
    return low_level.hash_secret(password.encode(), salt, 2, CHEAP_KIB, 1, 32, low_level.Type.ID).decode()


ARGON2 = argon2(PASSWORD)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


class Entropy:
    def __init__(self) -> None:
        self.calls = 0

    def bytes(self, count: int) -> bytes:
        self.calls += 1
        return bytes([self.calls % 256]) * count

    def uniform(self) -> float:
        return 0.5


class Offload:
    """Runs in place and counts the slow checks."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def __call__(self, function, /, *args, **kwargs):
        self.calls.append(len(args[0]))
        await asyncio.sleep(0)
        return function(*args, **kwargs)


class Tls:
    def __init__(self, binding: tuple[str, bytes] | None = None, *others: tuple[str, bytes]) -> None:
        self.channel_binding = binding
        self.other_bindings = others


BOUND = Tls(("tls-server-end-point", b"certificate hash"), ("tls-exporter", b"exported"))


def mailbox(name: str, *credentials: Credential, **fields) -> MailboxConfig:
    fields.setdefault("protocols", (IMAP, POP3, SUBMISSION))
    return MailboxConfig(address=f"{name}@example.com", quota_bytes=1, credentials=credentials, **fields)


def directory(*mailboxes: MailboxConfig) -> Directory:
    config = PodConfig(
        version=1,
        generation="1",
        hostname="mail.example.com",
        domains=(DomainConfig(domain="example.com"),),
        storage=StorageConfig(bucket="b"),
        listeners=(),
    )
    return Directory(config, mailboxes)


def own(**fields) -> Credential:
    return Credential("", ARGON2, scram_keys(b"salt" * 4, limits.SCRAM_ITERATIONS, PASSWORD), **fields)


ALICE = mailbox("alice", own(), aliases=("sales@example.com",))
PHONE = Credential("phone", verifiers.sha256_verifier(b"saltsalt", GENERATED), protocols=(IMAP,))
BOB = mailbox("bob", Credential("", verifiers.sha256_verifier(b"pepper", GENERATED)))
DIRECTORY = directory(
    ALICE,
    BOB,
    mailbox("carol", own(), PHONE),
    mailbox("locked", own(), state=MailboxState.LOCKED),
    mailbox("suspended", own(), state=MailboxState.SUSPENDED),
    mailbox("imaponly", own(), protocols=(IMAP,)),
)


class Bench:
    def __init__(self) -> None:
        self.clock, self.offload = Clock(), Offload()
        self.auth = Authenticator(self.clock, Entropy(), self.offload, salt_key=b"fleet")

    async def login(self, name: str, password: str, protocol: Protocol = IMAP, peer: str = "192.0.2.1") -> LoginResult:
        return await self.auth.password(DIRECTORY, protocol, name, password, peer)

    def exchange(self, mechanism: str, tls: Tls | None = BOUND, protocol: Protocol = IMAP, peer: str = "192.0.2.1") -> SaslExchange:
        exchange = self.auth.sasl(DIRECTORY, protocol, mechanism, peer, tls)
        assert exchange is not None
        return exchange


@pytest.fixture(autouse=True)
def cheap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function is not test_unknown_user_costs_real_work:
        monkeypatch.setattr(limits, "ARGON2_MEMORY_KIB", CHEAP_KIB)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_right_passwords(bench: Bench) -> None:
    """Owners get in by address or alias, in any case, by both kinds of verifier."""
    for name, password in (("alice@example.com", PASSWORD), ("SALES@Example.COM", PASSWORD), ("bob@example.com", GENERATED)):
        result = await bench.login(name, password)
        assert result.outcome is Outcome.OK
        assert result.mailbox is not None


async def test_known_password_needs_no_slow_hash(bench: Bench) -> None:
    """A phone that polls every minute would otherwise burn 20 ms of CPU each time."""
    await bench.login("alice@example.com", PASSWORD)
    assert len(bench.offload.calls) == 1
    await bench.login("alice@example.com", PASSWORD)
    assert len(bench.offload.calls) == 1
    bench.clock.time += limits.SUCCESS_CACHE_S
    await bench.login("alice@example.com", PASSWORD)
    assert len(bench.offload.calls) == 2


async def test_cache_does_not_outlive_the_password(bench: Bench) -> None:
    """Whoever knew the old password must be out as soon as the new one is loaded."""
    await bench.login("alice@example.com", PASSWORD)
    changed = directory(mailbox("alice", Credential("", argon2("new", b"t" * 16))))
    assert (await bench.auth.password(changed, IMAP, "alice@example.com", PASSWORD, "192.0.2.1")).outcome is Outcome.BAD_CREDENTIALS


async def test_many_at_once_are_one_check(bench: Bench) -> None:
    """A client that opens ten connections at start costs one slow hash."""
    results = await asyncio.gather(*(bench.login("alice@example.com", PASSWORD) for _ in range(10)))
    assert {r.outcome for r in results} == {Outcome.OK}
    assert len(bench.offload.calls) == 1


async def test_a_caller_that_hangs_up_stops_nobody_else(bench: Bench) -> None:
    """Joined checks survive the first asker's disconnect."""
    first = asyncio.ensure_future(bench.login("alice@example.com", PASSWORD))
    second = asyncio.ensure_future(bench.login("alice@example.com", PASSWORD))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).outcome is Outcome.OK


@pytest.mark.case(16)
async def test_same_answer_time_and_work_for_unknown_users(bench: Bench) -> None:
    """Guessing names: address known or not, any kind of verifier, the answer, its time and the work are the same."""
    seen = set()
    for name in ("alice@example.com", "bob@example.com", "nobody@example.com", "locked@example.com", "x" * 400, "nul\0@example.com"):
        bench.offload.calls.clear()
        before = bench.clock.time
        result = await bench.login(name, "wrong", peer=f"198.51.100.{len(name) % 250}")
        seen.add((result, bench.clock.time - before, len(bench.offload.calls)))
    assert len(seen) == 1
    assert seen.pop()[0].reason.name == "bad-credentials"


@pytest.mark.case(16)
def test_unknown_user_costs_real_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up check must be the true one's work, or a stopwatch tells which names exist."""
    works: list[tuple[Any, ...]] = []

    def recording(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any) -> object:
            works.append(args[2:])
            return function(*args)

        return call

    for name in ("hash_secret", "hash_secret_raw"):
        monkeypatch.setattr(low_level, name, recording(getattr(low_level, name)))
    true = verifiers.argon2_verifier(b"s" * 16, PASSWORD)
    assert verifiers.argon2_first_match([], [b"wrong"]) == -1
    assert works == [(2, 19 * 1024, 1, 32, low_level.Type.ID)] * 2
    assert verifiers.argon2_first_match([true], [b"wrong", PASSWORD.encode()]) == 0


@pytest.mark.case(16)
@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1", "::1"])
@pytest.mark.parametrize("name", ["alice@example.com", "nobody@example.com"])
async def test_guessing_an_account_is_slowed_down(bench: Bench, peer: str, name: str) -> None:
    """A dictionary against one account meets waits that double; the right password meets them too."""
    for _ in range(limits.ACCOUNT_FREE_FAILURES):
        assert (await bench.login(name, "wrong", peer=peer)).outcome is Outcome.BAD_CREDENTIALS
    waits = []
    for _ in range(12):
        result = await bench.login(name, "wrong", peer=peer)
        assert result.outcome is Outcome.THROTTLED
        assert result.reason.smtp_code == 454
        waits.append(result.retry_after_s)
        assert (await bench.login(name, PASSWORD, peer=peer)).outcome is Outcome.THROTTLED
        bench.clock.time += result.retry_after_s
        assert (await bench.login(name, "wrong", peer=peer)).outcome is Outcome.BAD_CREDENTIALS
    assert waits[3] > 3 * waits[1] > 0
    assert max(waits) <= limits.ADDRESS_DELAY_S_MAX


@pytest.mark.case(16)
async def test_guessing_many_accounts_from_one_address_is_slowed_down(bench: Bench) -> None:
    """Password spraying: each account is tried once, so only the address tells. An IPv6 host has a whole /64."""
    for i in range(limits.ADDRESS_FREE_FAILURES):
        assert (await bench.login(f"user{i}@example.com", "wrong", peer=f"2001:db8::{i:x}")).outcome is Outcome.BAD_CREDENTIALS
    assert (await bench.login("bob@example.com", GENERATED, peer="2001:db8::ffff")).outcome is Outcome.THROTTLED
    assert (await bench.login("bob@example.com", GENERATED, peer="2001:db8:0:1::1")).outcome is Outcome.OK


@pytest.mark.case(16)
async def test_a_burst_of_guesses_gets_no_further_than_a_row_of_them(bench: Bench) -> None:
    """500 connections that guess at the same moment must not all be checked before the first failure counts."""
    results = await asyncio.gather(*(bench.login("alice@example.com", f"guess{i}", peer=f"203.0.113.{i % 250}") for i in range(300)))
    checked = [r for r in results if r.outcome is Outcome.BAD_CREDENTIALS]
    assert len(checked) <= limits.ACCOUNT_FREE_FAILURES + limits.ARGON2_CONCURRENCY
    assert len(bench.offload.calls) == len(checked)


@pytest.mark.case(16)
async def test_a_crowd_does_not_make_guesses_free(bench: Bench) -> None:
    """While all places for slow checks are taken, a remembered password must not be found by trying many at no cost."""
    await bench.login("alice@example.com", PASSWORD, peer="192.0.2.77")
    crowd = [
        asyncio.ensure_future(bench.login(f"user{i}@example.com", "wrong", peer=f"10.0.{i // 250}.{i % 250}"))
        for i in range(limits.ARGON2_WAITING_MAX)
    ]
    await asyncio.sleep(0)
    outcomes = [(await bench.login("alice@example.com", f"guess{i}", peer=f"203.0.113.{i}")).reason.name for i in range(30)]
    right = await bench.login("alice@example.com", PASSWORD, peer="203.0.113.99")
    owner = await bench.login("alice@example.com", PASSWORD, peer="192.0.2.77")
    for task in crowd:
        task.cancel()
    assert outcomes.count("login-busy") <= limits.ACCOUNT_FREE_FAILURES
    assert outcomes[-1] == "login-throttled"
    assert right.outcome is Outcome.THROTTLED
    assert owner.outcome is Outcome.OK
    await asyncio.gather(*crowd, *bench.auth._flights.values(), return_exceptions=True)
    assert not bench.auth._pending


@pytest.mark.case(16)
async def test_a_burst_at_a_remembered_password_is_slowed_too(bench: Bench) -> None:
    """The fast comparison with a password that was right lately is no way around the brakes."""
    await bench.login("alice@example.com", PASSWORD, peer="192.0.2.77")
    guesses = [f"guess{i}" for i in range(100)] + [PASSWORD]
    results = await asyncio.gather(*(bench.login("alice@example.com", g, peer=f"203.0.113.{i}") for i, g in enumerate(guesses)))
    assert results[-1].outcome is Outcome.THROTTLED


async def test_waiting_logins_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand logins at once are told to come back, instead of filling memory."""
    monkeypatch.setattr(limits, "ARGON2_WAITING_MAX", 60)
    names = [f"user{i}@example.com" for i in range(limits.ARGON2_WAITING_MAX + 50)]
    results = await asyncio.gather(*(bench.login(n, "wrong", peer=f"10.0.{i // 250}.{i % 250}") for i, n in enumerate(names)))
    assert sum(r.reason.name == "login-busy" for r in results) == 50


async def test_guessers_elsewhere_do_not_lock_the_owner_out(bench: Bench) -> None:
    """An address from which the owner logged in before stays welcome while strangers guess."""
    await bench.login("alice@example.com", PASSWORD, peer="192.0.2.77")
    for i in range(limits.ACCOUNT_FREE_FAILURES + 1):
        await bench.login("alice@example.com", "wrong", peer=f"203.0.113.{i}")
    assert (await bench.login("alice@example.com", PASSWORD, peer="203.0.113.99")).outcome is Outcome.THROTTLED
    assert (await bench.login("alice@example.com", PASSWORD, peer="192.0.2.77")).outcome is Outcome.OK


def test_throttle_tables_are_bounded_and_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of made-up names must not fill memory, and old failures must not haunt an address for ever."""
    monkeypatch.setattr(limits, "THROTTLE_ENTRIES_MAX", 100)
    clock = Clock()
    throttle = Throttle(clock, 1, 900)
    for i in range(1000):
        throttle.failed(str(i))
    assert len(throttle) == 100
    assert throttle.wait_s("999") > 0
    for _ in range(5000):
        throttle.failed("999")  # the doubling must not overflow
    assert throttle.wait_s("999") == 900
    clock.time += limits.THROTTLE_FORGET_S
    assert throttle.wait_s("999") == 0


def test_address_keys() -> None:
    """IPv4 by address, also in its mapped form; IPv6 by /64; a zone does not make another client."""
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1")
    assert address_key("fe80::1%eth0") == address_key("fe80::2")
    assert address_key("2001:db8::1") != address_key("2001:db8:0:1::1")


@pytest.mark.parametrize("name", ["locked@example.com", "suspended@example.com"])
async def test_state_is_told_only_to_who_knows_the_password(bench: Bench, name: str) -> None:
    """A locked mailbox's owner is told so; a stranger learns nothing."""
    right, wrong = await bench.login(name, PASSWORD), await bench.login(name, "wrong")
    assert (right.outcome, right.mailbox, right.reason.smtp_code) == (Outcome.NOT_ALLOWED, None, 525)
    assert wrong.outcome is Outcome.BAD_CREDENTIALS


async def test_protocols_of_mailbox_and_app_password(bench: Bench) -> None:
    """A protocol that is not enabled is closed, and an app password opens only its own."""
    assert (await bench.login("imaponly@example.com", PASSWORD, IMAP)).outcome is Outcome.OK
    assert (await bench.login("imaponly@example.com", PASSWORD, POP3)).outcome is Outcome.NOT_ALLOWED
    assert (await bench.login("carol@example.com", GENERATED, IMAP)).outcome is Outcome.OK
    assert (await bench.login("carol@example.com", GENERATED, SUBMISSION)).outcome is Outcome.NOT_ALLOWED
    assert (await bench.login("carol@example.com", PASSWORD, SUBMISSION)).outcome is Outcome.OK


async def test_unreasonable_verifiers_are_not_computed(bench: Bench) -> None:
    """A verifier that asks for 4 GiB of memory must not take the pod down."""
    huge = ARGON2.replace(f"m={CHEAP_KIB}", "m=4194304")
    d = directory(
        mailbox("alice", Credential("", huge)), mailbox("bob", Credential("", "$argon2id$rubbish"), Credential("x", "$sha256$?$"))
    )
    for name in ("alice@example.com", "bob@example.com"):
        assert (await bench.auth.password(d, IMAP, name, PASSWORD, "192.0.2.1")).outcome is Outcome.BAD_CREDENTIALS
    assert bench.offload.calls == [0, 0]


async def test_unicode_passwords_in_either_normalisation(bench: Bench) -> None:
    """A Mac sends é decomposed, a phone composed: both are the same password."""
    d = directory(mailbox("alice", Credential("", verifiers.sha256_verifier(b"salt", "caf\u00e9 pass"))))
    assert (await bench.auth.password(d, IMAP, "alice@example.com", "cafe\u0301\u00a0pass", "192.0.2.1")).outcome is Outcome.OK


def test_saslprep_examples() -> None:
    """The table of RFC 4013 §3."""
    assert [saslprep(t) for t in ("I\u00adX", "user", "USER", "\u00aa", "\u2168")] == ["IX", "user", "USER", "a", "IX"]
    assert saslprep("\u0007") is None
    assert saslprep("\u06271") is None
    assert saslprep("\u0627\u0031\u0628") == "\u0627\u0031\u0628"


def test_mechanisms_need_tls(bench: Bench) -> None:
    """No password may be asked for in plaintext; -PLUS is offered only with something to bind to."""
    assert bench.auth.mechanisms(None) == ()
    assert "SCRAM-SHA-256-PLUS" not in bench.auth.mechanisms(Tls())
    assert bench.auth.mechanisms(BOUND)[-1] == "SCRAM-SHA-256-PLUS"
    assert bench.auth.sasl(DIRECTORY, IMAP, "PLAIN", "192.0.2.1", None) is None
    assert bench.auth.sasl(DIRECTORY, IMAP, "SCRAM-SHA-256-PLUS", "192.0.2.1", Tls()) is None
    assert bench.auth.sasl(DIRECTORY, IMAP, "CRAM-MD5", "192.0.2.1", BOUND) is None


async def test_plain(bench: Bench) -> None:
    """RFC 4616, with and without initial response."""
    message = f"\0alice@example.com\0{PASSWORD}".encode()
    result = await bench.exchange("plain").step(message)
    assert isinstance(result, LoginResult)
    assert result.mailbox is ALICE
    exchange = bench.exchange("PLAIN")
    assert await exchange.step(None) == b""
    assert (await exchange.step(message)).outcome is Outcome.OK  # type: ignore[union-attr]


async def test_plain_authzid(bench: Bench) -> None:
    """Nobody acts as somebody else; naming oneself is fine."""
    for authzid, reason in (
        ("alice@example.com", "login-ok"),
        ("sales@example.com", "login-ok"),
        ("bob@example.com", "sasl-other-identity"),
    ):
        result = await bench.exchange("PLAIN").step(f"{authzid}\0alice@example.com\0{PASSWORD}".encode())
        assert isinstance(result, LoginResult)
        assert result.reason.name == reason


async def test_login_mechanism(bench: Bench) -> None:
    """What Outlook speaks, also with the name in front."""
    exchange = bench.exchange("LOGIN")
    assert await exchange.step(None) == b"Username:"
    assert await exchange.step(b"bob@example.com") == b"Password:"
    assert (await exchange.step(GENERATED.encode())).outcome is Outcome.OK  # type: ignore[union-attr]
    exchange = bench.exchange("LOGIN")
    assert await exchange.step(b"bob@example.com") == b"Password:"
    assert (await exchange.step(b"wrong")).outcome is Outcome.BAD_CREDENTIALS  # type: ignore[union-attr]


@pytest.mark.case(16)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])
@given(messages=st.lists(st.none() | st.binary(max_size=60) | st.sampled_from([b"n,,n=alice@example.com,r=x", b"", b"\0\0", b"=" * 9000])))
@settings(max_examples=40, deadline=None)
async def test_any_nonsense_ends_in_a_refusal(mechanism: str, messages: list[bytes | None]) -> None:
    """Whatever bytes come, the exchange ends in a refusal within four messages, never in an exception or a login."""
    exchange = Bench().exchange(mechanism)
    for message in [*messages, None, None, b"", b"", b""][:8]:
        result = await exchange.step(message)
        if isinstance(result, LoginResult):
            assert result.outcome is Outcome.BAD_CREDENTIALS
            return
    pytest.fail("the exchange goes on and on")


@pytest.mark.case(16)
def test_base64_is_strict() -> None:
    """Bad base64 is refused, not guessed at; "=" is the empty initial response."""
    assert initial_response(b"=") == b""
    assert sasl_decode(b"") == b""
    for bad in (b"=", b"YQ", b"YQ=", b"Y Q==", b"*", b"\xff\xff\xff\xff", b"YQ==YQ==", b"A" * 20_000):
        assert sasl_decode(bad) is None, bad


async def scram(bench: Bench, name: str, password: str, tls: Tls = BOUND, *, plus: bool = False, **options) -> LoginResult:
    mechanism = "SCRAM-SHA-256-PLUS" if plus else "SCRAM-SHA-256"
    client = ScramClient([mechanism], name, password, channel_binding=tls.channel_binding if plus else None, **options)
    exchange = bench.exchange(mechanism, tls)
    first = await exchange.step(client.get_client_first().encode())
    if isinstance(first, LoginResult):
        return first
    client.set_server_first(first.decode())
    final = await exchange.step(client.get_client_final().encode())
    if isinstance(final, LoginResult):
        return final
    client.set_server_final(final.decode())  # raises if the server does not know the password either
    result = await exchange.step(b"")
    assert isinstance(result, LoginResult)
    assert isinstance(await exchange.step(b""), LoginResult)
    return result


@pytest.mark.parametrize("plus", [False, True])
async def test_scram_with_an_independent_client(bench: Bench, plus: bool) -> None:
    """RFC 5802 against someone else's client, both ways of proof, with and without channel binding."""
    result = await scram(bench, "alice@example.com", PASSWORD, plus=plus)
    assert result.mailbox is ALICE
    assert (await scram(bench, "alice@example.com", "wrong", plus=plus)).reason.name == "bad-credentials"
    assert (await scram(bench, "locked@example.com", PASSWORD, plus=plus)).reason.name == "login-not-allowed"
    assert bench.offload.calls == []


async def test_scram_takes_either_binding(bench: Bench) -> None:
    """A client chooses what it binds to (RFC 5802 §6), on TLS 1.3 mostly tls-exporter (RFC 9266); what it names is what it must prove."""
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"salt" * 4, limits.SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    for name, data, outcome in (
        ("tls-exporter", b"exported", Outcome.OK),
        ("tls-exporter", b"certificate hash", Outcome.BAD_CREDENTIALS),
        ("tls-server-end-point", b"certificate hash", Outcome.OK),
        ("tls-unique", b"exported", Outcome.BAD_CREDENTIALS),
    ):
        gs2, bare = f"p={name},,", "n=alice@example.com,r=abc"
        exchange = bench.exchange("SCRAM-SHA-256-PLUS", BOUND)
        first = await exchange.step((gs2 + bare).encode())
        if isinstance(first, bytes):
            nonce = first.decode().split(",")[0][2:]
            unproven = f"c={base64.b64encode(gs2.encode() + data).decode()},r={nonce}"
            signed = hmac.digest(hashlib.sha256(client_key).digest(), f"{bare},{first.decode()},{unproven}".encode(), "sha256")
            proof = bytes(x ^ y for x, y in zip(client_key, signed, strict=True))
            final = await exchange.step(f"{unproven},p={base64.b64encode(proof).decode()}".encode())
            first = await exchange.step(b"") if isinstance(final, bytes) else final
        assert isinstance(first, LoginResult)
        assert first.outcome is outcome, name


async def test_scram_downgrade_is_refused(bench: Bench) -> None:
    """A man in the middle who strikes -PLUS from the list is found out: the client says "y", and we did offer it."""
    message = b"y,,n=alice@example.com,r=abcdef"
    assert isinstance(await bench.exchange("SCRAM-SHA-256", BOUND).step(message), LoginResult)
    assert isinstance(await bench.exchange("SCRAM-SHA-256", Tls()).step(message), bytes)


async def test_scram_plus_binds_to_this_connection(bench: Bench) -> None:
    """Relaying a client's proof from another TLS connection fails."""
    client = ScramClient(["SCRAM-SHA-256-PLUS"], "alice@example.com", PASSWORD, channel_binding=("tls-server-end-point", b"the attacker's"))
    exchange = bench.exchange("SCRAM-SHA-256-PLUS")
    first = await exchange.step(client.get_client_first().encode())
    assert isinstance(first, bytes)
    client.set_server_first(first.decode())
    assert (await exchange.step(client.get_client_final().encode())).outcome is Outcome.BAD_CREDENTIALS  # type: ignore[union-attr]
    other = await bench.exchange("SCRAM-SHA-256-PLUS").step(b"p=tls-unique,,n=alice@example.com,r=abc")
    assert isinstance(other, LoginResult)
    plain = await bench.exchange("SCRAM-SHA-256-PLUS").step(b"n,,n=alice@example.com,r=abc")
    assert isinstance(plain, LoginResult)


@pytest.mark.case(16)
async def test_scram_unknown_users_look_known(bench: Bench) -> None:
    """The salt of a name without keys is stable, on another pod too, differs between names, and is as long as a real one."""
    message = "n,,n={},r=nonce"

    async def salt(b: Bench, name: str) -> tuple[bytes, bytes]:
        first = await b.exchange("SCRAM-SHA-256").step(message.format(name).encode())
        assert isinstance(first, bytes)
        return first.split(b",")[1], first.split(b",")[2]

    other = Bench()
    assert await salt(bench, "nobody@example.com") == await salt(other, "Nobody@Example.com")
    assert await salt(bench, "nobody@example.com") != await salt(bench, "noone@example.com")
    known, unknown = await salt(bench, "alice@example.com"), await salt(bench, "nobody@example.com")
    assert len(base64.b64decode(known[0][2:])) == len(base64.b64decode(unknown[0][2:]))
    assert known[1] == unknown[1]
    assert await salt(bench, "bob@example.com") == await salt(other, "bob@example.com")  # has a password, but no keys
    before = bench.clock.time
    result = await scram(bench, "nobody@example.com", "wrong")
    unknown_s, before = bench.clock.time - before, bench.clock.time
    assert result == await scram(bench, "alice@example.com", "wrong")
    assert bench.clock.time - before == unknown_s


@pytest.mark.case(16)
async def test_scram_guesses_count(bench: Bench) -> None:
    """SCRAM is no way around the brakes, not even with exchanges that were opened beforehand."""
    clients, exchanges, firsts = [], [], []
    for i in range(limits.ACCOUNT_FREE_FAILURES + 5):
        client = ScramClient(["SCRAM-SHA-256"], "alice@example.com", f"guess{i}")
        exchange = bench.exchange("SCRAM-SHA-256")
        first = await exchange.step(client.get_client_first().encode())
        assert isinstance(first, bytes)
        client.set_server_first(first.decode())
        clients.append(client)
        exchanges.append(exchange)
        firsts.append(first)
    finals = await asyncio.gather(*(e.step(c.get_client_final().encode()) for e, c in zip(exchanges, clients, strict=True)))
    outcomes = [r.outcome for r in finals if isinstance(r, LoginResult)]
    assert outcomes.count(Outcome.BAD_CREDENTIALS) == limits.ACCOUNT_FREE_FAILURES
    assert outcomes.count(Outcome.THROTTLED) == 5


async def test_scram_server_proves_itself() -> None:
    """A client notices a server that does not know its password: the signature is checked by the client."""
    client = ScramClient(["SCRAM-SHA-256"], "alice@example.com", PASSWORD)
    exchange = Bench().exchange("SCRAM-SHA-256")
    first = await exchange.step(client.get_client_first().encode())
    assert isinstance(first, bytes)
    client.set_server_first(first.decode())
    final = await exchange.step(client.get_client_final().encode())
    assert isinstance(final, bytes)
    forged = final[:-4] + (b"AAA=" if not final.endswith(b"AAA=") else b"BBB=")
    with pytest.raises(ScramException):
        client.set_server_final(forged.decode())


@pytest.mark.case(23)
async def test_no_secret_in_any_log(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither passwords nor the names of unknown users (people type passwords there) reach the log."""
    await bench.login("hunter2-typed-as-name", "hunter2-secret")
    await bench.login("alice@example.com", PASSWORD)
    await scram(bench, "hunter2-typed-as-name", "hunter2-secret")
    out = capsys.readouterr()
    text = out.out + out.err
    assert "alice@example.com" in text
    assert "hunter2" not in text
    assert PASSWORD not in text
    assert ARGON2 not in text

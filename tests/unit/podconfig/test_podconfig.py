"""From resources to the pod's files: the same input gives the same bytes, and every conflict has one outcome and a sentence."""

from __future__ import annotations

import hashlib
import itertools
import random
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mailoperator.api.documents import Resources, read
from mailoperator.desired import verifiers
from mailoperator.desired.podconfig import Keys, Placement, Rendered, build
from mailoperator.main.local import previous_of
from mailpod import contract

FLEET = ("mail", "example-com")
KEYS = Keys(b"f" * 32, b"p" * 32)


def domain(name: str, spec: dict[str, Any], **meta: str) -> dict[str, Any]:
    return {
        "apiVersion": "postroom.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": name, "namespace": "mail", **meta},
        "spec": spec,
    }


def mailbox(name: str, spec: dict[str, Any] | None = None, on: str = "example-com", **meta: str) -> dict[str, Any]:
    return {
        "apiVersion": "postroom.dev/v1alpha1",
        "kind": "Mailbox",
        "metadata": {"name": name, "namespace": "mail", **meta},
        "spec": {"domainRef": {"name": on}, **(spec or {})},
    }


def secret(_name: str, _ours: bool = False, _namespace: str = "mail", /, **values: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "postroom"} if _ours else {}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _name, "namespace": _namespace, "labels": labels},
        "stringData": values,
    }


def fleet(**spec: Any) -> dict[str, Any]:
    pods = {"hostname": "mail.example.com", "storage": {"s3": {"bucket": "mail"}}, **spec.pop("pods", {})}
    return domain("example-com", {"domain": "example.com", "pods": pods, **spec})


# Nobody in these tests has to wait for argon2 unless the test is about it.
NO_LOGIN: dict[str, Any] = {"protocols": []}


def made(documents: list[dict[str, Any]], previous: dict[tuple[str, str], contract.Credential] | None = None, seed: int = 1) -> Rendered:
    resources = read([("x.yaml", yaml.safe_dump_all(documents))])
    assert not resources.problems
    return build(resources, FLEET, KEYS, random.Random(seed).randbytes, Placement(), previous or {})


def boxes(result: Rendered) -> dict[str, contract.MailboxConfig]:
    assert result.files is not None
    shards = [msgspec.json.decode(data, type=contract.Shard) for name, data in result.files.items() if name.startswith("mailboxes-")]
    return {box.address: box for shard in shards for box in shard.mailboxes}


def pod(result: Rendered) -> contract.PodConfig:
    assert result.files is not None
    return msgspec.json.decode(result.files["pod.json"], type=contract.PodConfig)


def reasons(result: Rendered) -> dict[str, str]:
    return {problem.name: problem.reason for problem in result.problems}


def test_defaults_are_resolved():
    """A Mailbox that says nothing has its domain's quota and protocols, and the API's documented defaults."""
    result = made([fleet(mailboxDefaults={"quota": "2Gi"}), mailbox("alice"), mailbox("bob", {"quota": "1Gi", "protocols": ["POP3"]})])
    found = boxes(result)
    assert found["alice@example.com"].quota_bytes == 2 * 1024**3
    assert found["alice@example.com"].protocols == (contract.Protocol.IMAP, contract.Protocol.SUBMISSION)
    assert found["bob@example.com"].protocols == (contract.Protocol.POP3,)
    config = pod(result)
    assert [listener.name for listener in config.listeners] == ["SMTP", "Submission", "Submissions", "IMAP", "IMAPS"]
    assert config.storage.retention_seconds == 14 * 86400
    assert config.domains[0].max_message_bytes == 50 * 1024**2


def test_files_are_the_contracts():
    """The pod finds each mailbox in the shard in which it looks, and empty shards are not written."""
    result = made([fleet(), *(mailbox(f"m{n}", NO_LOGIN) for n in range(100))])
    assert result.files is not None
    for name, data in result.files.items():
        if name.startswith("mailboxes-"):
            shard = msgspec.json.decode(data, type=contract.Shard)
            assert shard.mailboxes
            assert all(f"mailboxes-{contract.shard_of(box.address):02x}.json" == name for box in shard.mailboxes)
    assert len(boxes(result)) == 100


def test_one_changed_mailbox_rewrites_one_shard():
    """Or a fleet of 10,000 mailboxes would write 64 Secrets for every new quota."""
    documents = [fleet(), *(mailbox(f"m{n}", NO_LOGIN) for n in range(100))]
    before = made(documents).files
    documents[7] = mailbox("m6", {**NO_LOGIN, "quota": "1Gi"})
    after = made(documents).files
    assert before is not None
    assert after is not None
    assert sorted(name for name in before if before[name] != after[name]) == [
        f"mailboxes-{contract.shard_of('m6@example.com'):02x}.json",
        "pod.json",
    ]


def test_generation_follows_every_file():
    """The pod reports it back; a change without a new generation could not be waited for."""
    first = made([fleet(), mailbox("alice", NO_LOGIN)])
    second = made([fleet(), mailbox("alice", {**NO_LOGIN, "displayName": "A"})])
    assert first.generation != second.generation
    assert pod(first).generation == first.generation


def test_given_password_gets_argon2_and_scram():
    """The verifiers must be those that the pod checks (argon2id as PHC, RFC 5802 keys)."""
    import argon2

    documents = [
        fleet(),
        secret("bob-password", password="hörse battery\n", phone="only for the phone"),
        mailbox(
            "bob",
            {
                "password": {"secretRef": {"name": "bob-password"}},
                "appPasswords": [{"name": "phone", "secretRef": {"name": "bob-password", "key": "phone"}, "protocols": ["IMAP"]}],
            },
        ),
    ]
    own, phone = boxes(made(documents))["bob@example.com"].credentials
    hasher = argon2.PasswordHasher()
    assert hasher.verify(own.verifier, "hörse battery")
    assert own.scram is not None
    salted = hashlib.pbkdf2_hmac("sha256", "hörse battery".encode(), own.scram.salt, own.scram.iterations)
    import hmac

    assert own.scram.server_key == hmac.digest(salted, b"Server Key", "sha256")
    assert own.scram.stored_key == hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    assert hasher.verify(phone.verifier, "only for the phone")
    assert phone.protocols == (contract.Protocol.IMAP,)
    assert phone.scram is None


def test_verifiers_are_reused_while_the_password_is(monkeypatch):
    """Hashing 10,000 passwords at each look would take minutes; and a changed password must not keep its old verifier."""
    documents = [fleet(), secret("s", password="one"), mailbox("bob", {"password": {"secretRef": {"name": "s"}}}), mailbox("alice")]
    first = made(documents)
    assert first.files is not None
    documents += [secret(item.metadata.name, True, **{k: v.decode() for k, v in item.values.items()}) for item in first.made]
    again = made(documents, previous_of(first.files))
    monkeypatch.setattr("argon2.low_level.hash_secret", lambda *_: pytest.fail("hashed again"))
    monkeypatch.setattr("hashlib.pbkdf2_hmac", lambda *_: pytest.fail("derived again"))
    assert made(documents, previous_of(first.files)).files == again.files == first.files
    monkeypatch.undo()
    documents[1] = secret("s", password="two")
    changed = boxes(made(documents, previous_of(first.files)))["bob@example.com"].credentials[0]
    assert changed.verifier != boxes(first)["bob@example.com"].credentials[0].verifier
    assert changed.scram != boxes(first)["bob@example.com"].credentials[0].scram


def test_no_two_salts_are_alike():
    """Equal passwords must not be seen to be equal, neither of two people nor of one's two uses."""
    salts = {
        verifiers.fingerprint(KEYS.fingerprint, *fields)
        for fields in itertools.product(("argon2id", "scram"), ("a@example.com", "b@example.com"), ("", "x"), (b"p", b"q"))
    }
    assert len(salts) == 16
    assert verifiers.fingerprint(b"other", "scram", "a", "", b"p") not in salts


def test_generated_password():
    """128 bits, handed out once as a Secret, checkable with the pod's rule: SHA-256 of salt and password."""
    import base64

    result = made([fleet(), mailbox("alice")])
    (made_secret,) = result.made
    assert made_secret.metadata.key == ("mail", "alice-credentials")
    assert made_secret.ours
    password = made_secret.values["password"]
    assert len(password.replace(b"-", b"")) == 26  # base32 of 128 bits
    _, kind, salt, digest = boxes(result)["alice@example.com"].credentials[0].verifier.split("$")
    decoded = base64.b64decode(salt + "==")
    assert kind == "sha256"
    assert base64.b64decode(digest + "=") == hashlib.sha256(decoded + password).digest()


def test_passwords_never_leave():
    """No file of the pod holds a password, nor the key that fingerprints are made with."""
    result = made(
        [fleet(), secret("s", password="tr0ub4dor"), mailbox("bob", {"password": {"secretRef": {"name": "s"}}}), mailbox("alice")]
    )
    assert result.files is not None
    everything = b"".join(result.files.values())
    assert b"tr0ub4dor" not in everything
    assert result.made[0].values["password"] not in everything
    assert KEYS.fingerprint not in everything
    assert KEYS.fingerprint.hex().encode() not in everything


def test_phc_password_is_taken_as_it_is():
    """Whoever moves from another server brings verifiers along."""
    phc = "$argon2id$v=19$m=19456,t=2,p=1$" + "A" * 22 + "$" + "B" * 43
    spec = {"password": {"secretRef": {"name": "s"}, "format": "PHC"}}
    assert boxes(made([fleet(), secret("s", password=phc), mailbox("bob", spec)]))["bob@example.com"].credentials[0].verifier == phc
    for bad in ("$6$crypt", phc.replace("19456", "9999999"), phc.replace("argon2id", "argon2i")):
        result = made([fleet(), secret("s", password=bad), mailbox("bob", spec)])
        assert reasons(result)["bob"] == "CredentialsInvalid"
        assert boxes(result)["bob@example.com"].credentials == ()


@pytest.mark.parametrize(
    ("documents", "name", "reason"),
    [
        ([mailbox("bob", {"password": {"secretRef": {"name": "none"}}})], "bob", "SecretNotFound"),
        ([secret("s", x="y"), mailbox("bob", {"password": {"secretRef": {"name": "s"}}})], "bob", "SecretNotFound"),
        ([secret("s", password="\n"), mailbox("bob", {"password": {"secretRef": {"name": "s"}}})], "bob", "CredentialsInvalid"),
        ([secret("s", password="a\tb"), mailbox("bob", {"password": {"secretRef": {"name": "s"}}})], "bob", "CredentialsInvalid"),
        (
            [secret("s", False, "other", password="x"), mailbox("bob", {"password": {"secretRef": {"name": "s"}}})],
            "bob",
            "SecretNotFound",
        ),
        ([secret("bob-credentials", password="x"), mailbox("bob")], "bob", "NameTaken"),
        ([mailbox("bob", NO_LOGIN, on="nowhere")], "bob", "DomainNotFound"),
        ([mailbox("bob", {**NO_LOGIN, "aliases": ["x@elsewhere.example"]})], "bob", "AliasDomainNotFound"),
        ([mailbox("bob", {**NO_LOGIN, "aliases": ["admin"]})], "bob", "RoleAddressReserved"),
        ([mailbox("admin", NO_LOGIN)], "admin", "RoleAddressReserved"),
        ([domain("second", {"domain": "example.org", "hostedByRef": {"name": "none"}})], "second", "HostNotFound"),
        ([domain("second", {"domain": "example.com", "hostedByRef": {"name": "example-com"}})], "second", "DomainClaimed"),
        (
            [
                domain("second", {"domain": "example.org", "hostedByRef": {"name": "example-com"}}),
                domain("third", {"domain": "example.info", "hostedByRef": {"name": "second"}}),
            ],
            "third",
            "HostNotFound",
        ),
    ],
)
@pytest.mark.case(25)
def test_what_is_wrong_has_a_reason_and_harms_nobody_else(documents, name, reason):
    """One tenant's mistake must not stop the others' mail, and must be explained."""
    result = made([fleet(), mailbox("good", NO_LOGIN), *documents])
    assert reasons(result) == {name: reason}
    assert "good@example.com" in boxes(result)


@pytest.mark.parametrize(
    ("pods", "documents", "reason"),
    [
        ({"storage": {"s3": {"bucket": "mail", "credentialsSecretRef": {"name": "none"}}}}, [], "SecretNotFound"),
        ({"storage": {"s3": {"bucket": "mail", "credentialsSecretRef": {"name": "s"}}}}, [secret("s", x="y")], "SecretNotFound"),
        ({"tls": {"secretRef": {"name": "t"}}}, [secret("t", False, **{"tls.crt": "x", "tls.key": "y"})], "CertificateInvalid"),
    ],
)
def test_fleet_without_its_secrets_is_not_rendered(pods, documents, reason):
    """Half a configuration would stop every pod: what is in force stays in force."""
    result = made([fleet(pods=pods), *documents])
    assert result.files is None
    assert reasons(result)["example-com"] == reason


def test_bucket_keys_and_certificate_reach_the_files():
    """What the pod needs to open its bucket and its listeners."""
    import trustme
    from cryptography.hazmat.primitives import serialization

    issued = trustme.CA().issue_cert("mail.example.com")
    chain, key = issued.cert_chain_pems[0].bytes().decode(), issued.private_key_pem.bytes().decode()
    s3 = {"bucket": "mail", "credentialsSecretRef": {"name": "k"}, "caSecretRef": {"name": "k"}}
    documents = [
        fleet(pods={"storage": {"s3": s3}, "tls": {"secretRef": {"name": "t"}}}),
        secret("k", AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="key\n", **{"ca.crt": "PEM"}),
        secret("t", **{"tls.crt": chain, "tls.key": key}),
    ]
    files = made(documents).files
    assert files is not None
    assert files["s3-access-key-id"] == b"id\n"
    assert files["s3-secret-access-key"] == b"key\n"
    assert files["s3-ca.crt"] == b"PEM\n"
    assert serialization.load_pem_private_key(files["tls.key"], None) is not None
    other = trustme.CA().issue_cert("mail.example.com").private_key_pem.bytes().decode()
    documents[2] = secret("t", **{"tls.crt": chain, "tls.key": other})
    assert "not that of the first certificate" in str(made(documents).problems[0])


def test_older_wins():
    """A newcomer must not take an address or a domain away from who has it."""
    old, new = {"creationTimestamp": "2026-01-01T00:00:00Z"}, {"creationTimestamp": "2026-02-01T00:00:00Z"}
    result = made(
        [
            {**fleet(), "metadata": {"name": "example-com", "namespace": "mail", **new}},
            domain("thief", {"domain": "example.org", "aliasDomains": ["example.net"], "hostedByRef": {"name": "example-com"}}, **new),
            domain("owner", {"domain": "example.net", "hostedByRef": {"name": "example-com"}}, **old),
            mailbox("z-old", {**NO_LOGIN, "localPart": "sales", "aliases": ["shop"]}, **old),
            mailbox("a-new", {**NO_LOGIN, "localPart": "sales"}, **new),
            mailbox("b-new", {**NO_LOGIN, "aliases": ["shop", "sales", "only-mine"]}, **new),
        ]
    )
    assert reasons(result) == {"thief": "DomainClaimed", "a-new": "AddressTaken", "b-new": "AddressTaken"}
    assert boxes(result)["sales@example.com"].aliases == ("shop@example.com",)
    assert boxes(result)["b-new@example.com"].aliases == ("only-mine@example.com",)
    assert {item.domain: item.alias_domains for item in pod(result).domains}["example.org"] == ()


def test_address_beats_an_older_alias():
    """A person's own mailbox is never swallowed by somebody's alias."""
    result = made(
        [
            fleet(),
            mailbox("a", {**NO_LOGIN, "aliases": ["bob"]}, creationTimestamp="2020-01-01T00:00:00Z"),
            mailbox("bob", NO_LOGIN, creationTimestamp="2026-01-01T00:00:00Z"),
        ]
    )
    assert reasons(result) == {"a": "AddressTaken"}
    assert "bob@example.com" in boxes(result)


def test_aliases_of_alias_domains_are_kept_under_the_domain():
    """The pod looks addresses up under the domain's own name."""
    documents = [fleet(aliasDomains=["example.net"]), mailbox("bob", {**NO_LOGIN, "aliases": ["shop@example.net", "bob@example.net"]})]
    assert boxes(made(documents))["bob@example.com"].aliases == ("shop@example.com",)


def test_roles():
    """postmaster@ reaches somebody always; admin@ only whom the domain's owner named, since certificates are given to who reads it."""
    result = made(
        [fleet(roles={"mailboxRef": {"name": "boss"}, "addresses": ["admin"]}), mailbox("a", NO_LOGIN), mailbox("boss", NO_LOGIN)]
    )
    assert pod(result).domains[0].role_mailbox == "boss@example.com"
    assert pod(result).domains[0].role_addresses == ("admin", "postmaster")
    nobody = made([fleet(), mailbox("b", NO_LOGIN), mailbox("a", NO_LOGIN)])
    assert pod(nobody).domains[0].role_mailbox == "a@example.com"
    missing = made([fleet(roles={"mailboxRef": {"name": "gone"}}, catchAllMailboxRef={"name": "gone"}), mailbox("a", NO_LOGIN)])
    assert [problem.path for problem in missing.problems] == ["spec.catchAllMailboxRef", "spec.roles.mailboxRef"]
    assert pod(missing).domains[0].role_mailbox == "a@example.com"
    assert pod(missing).domains[0].catch_all is None


def test_another_fleets_mailboxes_stay_there():
    """Two fleets in one folder must not see each other's mail."""
    other = domain("other", {"domain": "other.example", "pods": fleet()["spec"]["pods"]})
    result = made([fleet(), other, mailbox("alice", NO_LOGIN, on="other"), mailbox("bob", NO_LOGIN)])
    assert list(boxes(result)) == ["bob@example.com"]
    assert [item.domain for item in pod(result).domains] == ["example.com"]


_NAMES = st.sampled_from(["alice", "bob", "carol", "dave"])
_MAILBOXES = st.lists(
    st.builds(
        lambda name, local, aliases, on, age: mailbox(
            name,
            {**NO_LOGIN, "aliases": aliases, **({"localPart": local} if local else {})},
            on=on,
            **({"creationTimestamp": f"2026-01-0{age}T00:00:00Z"} if age else {}),
        ),
        _NAMES,
        st.sampled_from(["", "sales", "bob", "postmaster"]),
        st.lists(st.sampled_from(["sales", "info@example.org", "alice", "x@example.net", "admin"]), max_size=3, unique=True),
        st.sampled_from(["example-com", "second", "none"]),
        st.integers(0, 3),
    ),
    max_size=4,
    unique_by=lambda item: item["metadata"]["name"],
)


@given(_MAILBOXES, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_order_never_matters(mailboxes, shuffler):
    """Two renders of one folder, on two machines, must agree on every byte and every problem."""
    documents = [
        fleet(aliasDomains=["example.net"]),
        domain("second", {"domain": "example.org", "aliasDomains": ["example.net"], "hostedByRef": {"name": "example-com"}}),
        *mailboxes,
    ]
    first = made(documents)
    shuffled = list(documents)
    shuffler.shuffle(shuffled)
    second = made(shuffled)
    assert first.files == second.files
    assert sorted(first.problems) == sorted(second.problems)
    # And the outcome is one that the pod takes: no address twice.
    addresses = [address for box in boxes(first).values() for address in (box.address, *box.aliases)]
    assert len(addresses) == len(set(addresses))


def test_unknown_fleet_is_named():
    """A typo in --fleet must not render an empty pod."""
    result = build(Resources(), FLEET, KEYS, random.Random(1).randbytes, Placement(), {})
    assert result.files is None
    assert reasons(result) == {"example-com": "NotFound"}

"""YAML to typed resources: what is refused, and with which sentence."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mailoperator.api.documents import read
from mailoperator.api.names import local_fault
from mailoperator.api.quantities import parse_duration, parse_quantity

DOMAIN: dict[str, Any] = {
    "apiVersion": "postroom.dev/v1alpha1",
    "kind": "MailDomain",
    "metadata": {"name": "example-com", "namespace": "mail"},
    "spec": {"domain": "example.com", "pods": {"hostname": "mail.example.com", "storage": {"s3": {"bucket": "mail"}}}},
}
MAILBOX: dict[str, Any] = {
    "apiVersion": "postroom.dev/v1alpha1",
    "kind": "Mailbox",
    "metadata": {"name": "alice", "namespace": "mail"},
    "spec": {"domainRef": {"name": "example-com"}},
}


def changed(base: dict[str, Any], path: str, value: object) -> str:
    """The document as YAML, with one field set (or removed, with None)."""
    document = yaml.safe_load(yaml.safe_dump(base))
    target = document
    *parents, last = path.split(".")
    for part in parents:
        target = target.setdefault(part, {})
    if value is None:
        del target[last]
    else:
        target[last] = value
    return yaml.safe_dump(document)


def sentences(text: str) -> str:
    return "\n".join(map(str, read([("test.yaml", text)]).problems))


def test_good_documents_are_read():
    """Whoever follows the examples must get resources and no complaint."""
    found = read([("a.yaml", yaml.safe_dump_all([DOMAIN, MAILBOX]))])
    assert not found.problems
    assert found.domains[0].spec.domain == "example.com"
    assert found.mailboxes[0].spec.domain_ref.name == "example-com"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("metadata.name", "example.com", "metadata.name: must be at most 40 lower case letters"),
        ("metadata.name", "x" * 41, "must be at most 40"),
        ("spec.domain", "Example.com", "spec.domain: must be a domain name in lower case"),
        ("spec.domain", "localhost", "must be a domain name"),
        ("spec.domain", "10.0.0.1", "must be a domain name"),
        ("spec.domain", "exämple.com", "xn-- form"),
        ("spec.domain", None, "needs the field 'domain'"),
        ("spec.aliasDomains", ["example.com"], "example.com is there twice"),
        ("spec.aliasDomains", [f"a{n}.example" for n in range(65)], "at most 64, not 65"),
        ("spec.hostedByRef", {"name": "other"}, "exactly one of pods"),
        ("spec.pods", None, "exactly one of pods"),
        ("spec.dkim", {"rotateEvery": "30d"}, "has no field 'dkim' in this version"),
        ("spec.pods.replicas", 3, "spec.pods: has no field 'replicas'"),
        ("spec.pods.hostname", "mail_1.example.com", "spec.pods.hostname: must be a domain name"),
        ("spec.pods.storage.retention", "14", "must be a duration such as"),
        ("spec.pods.storage.retention", "12h", "must be between 1d and 3650d, not 12h"),
        ("spec.pods.storage.cacheSize", "1GB", "must be a size such as"),
        ("spec.pods.storage.s3.endpoint", "s3.example.com", "begins with https://"),
        ("spec.pods.storage.s3.prefix", "/mail", "without a leading /"),
        ("spec.pods.storage.s3.bucket", "x", "must be a bucket name"),
        ("spec.pods.storage.s3.kmsKeyID", "k", "needs serverSideEncryption aws:kms"),
        ("spec.pods.storage.s3.serverSideEncryption", "AES", "must be one of AES256, aws:kms"),
        ("spec.pods.tls", {"minVersion": "TLSv1.0"}, "must be one of TLSv1.2, TLSv1.3; not 'TLSv1.0'"),
        ("spec.pods.logLevel", "Verbose", "must be one of Debug, Info, Warning, Error"),
        ("spec.pods.listeners", [], "at least one listener"),
        ("spec.pods.listeners", [{"name": "HTTP"}], "must be one of SMTP, Submission"),
        ("spec.pods.listeners", [{"name": "IMAP"}, {"name": "IMAP", "port": 144}], "IMAP is there twice"),
        ("spec.pods.listeners", [{"name": "IMAP"}, {"name": "POP3", "port": 143}], "143 is IMAP's already"),
        ("spec.pods.listeners", [{"name": "IMAP", "port": 70000}], "between 1 and 65535, not 70000"),
        ("spec.pods.listeners", [{"name": "IMAP", "port": "143"}], "expected int | null, got str"),
        ("spec.pods.proxyProtocol", {"trustedCIDRs": ["10.0.0.1/24"]}, "without host bits"),
        ("spec.pods.proxyProtocol", {"trustedCIDRs": ["10.0.0.1"]}, "must be a network such as"),
        ("spec.inbound", {"maxMessageSize": "1Ki"}, "between 64Ki and 1Gi"),
        ("spec.inbound", {"recipientDelimiter": "++"}, "must be one of + - _"),
        ("spec.roles", {"addresses": ["Abuse"]}, "before the @"),
        ("spec.mailboxDefaults", {"quota": 100}, "between 1Mi and"),
        ("spec.mailboxDefaults", {"protocols": ["IMAP", "Webmail"]}, "must be one of IMAP, POP3, Submission"),
    ],
)
def test_bad_maildomain_is_refused_with_its_sentence(path, value, sentence):
    """An administrator must read what to change, not a stack trace or a regex."""
    text = changed(DOMAIN, path, value)
    assert sentence in sentences(text)
    assert not read([("test.yaml", text)]).domains


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("metadata.name", "Alice", "metadata.name: must be at most 63 lower case"),
        ("metadata.name", "a" * 64, "at most 63"),
        ("spec.localPart", "Alice", "lower case letters"),
        ("spec.localPart", "a+b", "no +"),
        ("spec.localPart", "a..b", "single dots between"),
        ("spec.localPart", "ü" * 33, "at most 64 bytes"),
        ("spec.localPart", "a\u2028b", "before the @"),
        ("spec.displayName", "Alice\r\nBcc: x", "one line"),
        ("spec.displayName", "Alice\u2028Bob", "one line"),
        ("spec.aliases", ["a@b@example.com"], "spec.aliases[0]: must be the part of an address"),
        ("spec.aliases", ["sales", "sales"], "sales is there twice"),
        ("spec.password", {"secretRef": {"name": "x"}, "format": "Crypt"}, "must be one of Plain, PHC"),
        ("spec.password", {"secretRef": {"name": "other/x"}}, "spec.password.secretRef.name: must be at most 63"),
        ("spec.password", {"secretRef": {"name": "x", "namespace": "other"}}, "has no field 'namespace'"),
        ("spec.password", {"format": "Plain"}, "needs the field 'secretRef'"),
        ("spec.appPasswords", [{"name": "p", "secretRef": {"name": n}} for n in "xy"], "p is there twice"),
        ("spec.appPasswords", [{"name": f"p{n}", "secretRef": {"name": "x"}} for n in range(17)], "at most 16"),
        ("spec.quota", "lots", "must be a size such as"),
        ("spec.quota", True, "expected int | str | null, got bool"),
        ("spec.protocols", ["IMAP", "IMAP"], "IMAP is there twice"),
        ("spec.state", "Off", "must be one of Active, Locked, Suspended"),
        ("spec.sieve", {"script": "keep;"}, "has no field 'sieve'"),
    ],
)
@pytest.mark.case(8)
@pytest.mark.case(25)
def test_bad_mailbox_is_refused_with_its_sentence(path, value, sentence):
    """A name that would break a header, a reference into another namespace, a typo: none may become a mailbox."""
    text = changed(MAILBOX, path, value)
    assert sentence in sentences(text)
    assert not read([("test.yaml", text)]).mailboxes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML"),
        ("a: &x 1\nb: *x\n", "anchors and aliases are not read"),
        ("kind: Mailbox\nkind: MailDomain\n", "the key 'kind' is there twice, line 2"),
        ("? [a]\n: 1\n", "a key must be plain text"),
        ("- 1\n", "must be an object"),
        ("[" * 500, "is not YAML"),
        ("a: !!python/object/apply:os.system [true]\n", "is not YAML"),
        ("apiVersion: postroom.dev/v1alpha1\nkind: RelayPolicy\nmetadata: {name: x}\n", "reads MailDomain and Mailbox"),
        ("apiVersion: postroom.dev/v2\nkind: Mailbox\nmetadata: {name: x}\n", "not Mailbox of postroom.dev/v2"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {password: 'no base64!'}\n", "data.password: must be base64"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {}\n", "needs the field 'name'"),
    ],
)
def test_unreadable_text_is_refused_with_its_sentence(text, sentence):
    """Ambiguous or hostile YAML must not be guessed at, and must not run anything."""
    assert sentence in sentences(text)


def test_same_object_twice_names_both_files():
    """Two files that define one mailbox: the later would silently win otherwise."""
    text = yaml.safe_dump(MAILBOX)
    assert "is there twice: in a.yaml and in b.yaml" in str(read([("a.yaml", text), ("b.yaml", text)]).problems[0])


def test_foreign_objects_are_left_alone():
    """A folder for `kubectl apply` may hold a Namespace too."""
    found = read([("a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: mail}\n---\n---\n")])
    assert not found.problems


def test_time_stamps_stay_text():
    """kubectl's output has creationTimestamp, which YAML would turn into a date: ages would not compare."""
    document = {**MAILBOX, "metadata": {**MAILBOX["metadata"], "creationTimestamp": "2026-01-02T03:04:05Z"}}
    text = yaml.safe_dump(document).replace("'2026-01-02T03:04:05Z'", "2026-01-02T03:04:05Z")
    assert read([("a.yaml", text)]).mailboxes[0].metadata.creation_timestamp == "2026-01-02T03:04:05Z"


def test_secret_data_and_string_data():
    """stringData wins over data, as in the API server; wrapped base64 is accepted."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: 'b25l\n b25l', b: dHdv}\nstringData: {b: three}\n"
    assert read([("a.yaml", text)]).secrets[0].values == {"a": b"oneone", "b": b"three"}


@pytest.mark.parametrize(("text", "size"), [("1Mi", 2**20), (5, 5), ("5k", 5000), ("2Ti", 2**41), ("999999999999999", 999999999999999)])
def test_quantities(text, size):
    """A quota off by a factor fills or wastes a disk."""
    assert parse_quantity(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5Gi", "1 Gi", "1Ei", "1e3", "01", "１Gi", "1Gi\n", "9999P" * 3, True])
def test_bad_quantities(text):
    """What Kubernetes' own parser might read differently is refused."""
    with pytest.raises(ValueError, match="must be"):
        parse_quantity(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43200), ("14d", 1209600)])
def test_durations(text, seconds):
    """Retention in the wrong unit deletes mail too early."""
    assert parse_duration(text) == seconds


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused(text):
    """Whatever lies in the folder, `render` must answer with sentences."""
    read([("x.yaml", text)])


@given(st.text(max_size=70))
@settings(max_examples=150, deadline=None)
@pytest.mark.case(8)
def test_accepted_local_parts_are_harmless(local):
    """No accepted local part can break a header, an SMTP line or a key in the bucket."""
    if not local_fault(local):
        assert local.isprintable()
        assert not set(local) & set(' "\\<>()[]:;,@+/\r\n') - {"/"}
        assert local == local.lower()

"""The pod's own check of its configuration: whole, or refused with sentences. And the directory that it is read from."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod import contract
from mailpod.adapters.configdir import ConfigDirectory
from mailpod.limits import web as limits
from mailpod.main.configuration import ConfigError, parse

POD = contract.PodConfig(
    version=1,
    generation="g1",
    hostname="mail.example.com",
    domains=(contract.DomainConfig(domain="example.com"),),
    storage=contract.StorageConfig(bucket="mail"),
    listeners=(contract.ListenerConfig(contract.ListenerName.IMAP, 143),),
)
VERIFIER = "$sha256$" + "A" * 22 + "$" + base64.b64encode(bytes(32)).decode().rstrip("=")
ALICE = contract.MailboxConfig(
    address="alice@example.com",
    quota_bytes=1,
    protocols=(contract.Protocol.IMAP,),
    credentials=(contract.Credential(name="", verifier=VERIFIER),),
)


def files(pod: contract.PodConfig = POD, *boxes: contract.MailboxConfig, **others: bytes) -> dict[str, bytes]:
    made = {"pod.json": msgspec.json.encode(pod)}
    for box in boxes:
        name = f"mailboxes-{contract.shard_of(box.address):02x}.json"
        made[name] = msgspec.json.encode(contract.Shard(version=1, mailboxes=(box,)))
    return {**made, **{name.replace("_", "."): data for name, data in others.items()}}


def refusal(content: dict[str, bytes]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(content)
    return str(caught.value)


def with_pod(**changes: object) -> contract.PodConfig:
    return msgspec.structs.replace(POD, **changes)


def with_box(**changes: object) -> contract.MailboxConfig:
    return msgspec.structs.replace(ALICE, **changes)


def test_good_configuration():
    """What the operator writes is taken."""
    found = parse(files(POD, ALICE, fleet_key=b"00" * 32 + b"\n"))
    assert found.mailboxes == (ALICE,)
    assert found.fleet_key == bytes(32)
    assert found.certificate is None
    assert VERIFIER not in repr(found)


def test_unknown_fields_are_ignored():
    """An older pod reads a newer operator's files."""
    content = files(POD, ALICE)
    content["pod.json"] = content["pod.json"].replace(b'{"version":1', b'{"version":1,"colour":"blue"')
    assert parse(content).pod == POD


@pytest.mark.parametrize(
    ("pod", "sentence"),
    [
        (with_pod(version=2), "has version 2, this pod reads up to 1"),
        (with_pod(hostname="two words"), "is no host name"),
        (with_pod(domains=(contract.DomainConfig(domain="Example.com"),)), "no domain in lower case"),
        (
            with_pod(
                domains=(contract.DomainConfig(domain="a.example"), contract.DomainConfig(domain="b.example", alias_domains=("a.example",)))
            ),
            "a.example is a domain of both",
        ),
        (with_pod(domains=(contract.DomainConfig(domain="example.com", max_message_bytes=1),)), "max_message_bytes must be between"),
        (with_pod(domains=(contract.DomainConfig(domain="example.com", recipient_delimiter="+-"),)), "one character or none"),
        (with_pod(domains=(contract.DomainConfig(domain="example.com", catch_all="alice"),)), "catch_all 'alice' is no address"),
        (with_pod(storage=contract.StorageConfig(bucket="")), "storage.bucket is empty"),
        (with_pod(storage=contract.StorageConfig(bucket="x", cache_bytes=-1)), "must not be negative"),
        (with_pod(listeners=(contract.ListenerConfig(contract.ListenerName.IMAP, 8080),)), "port 8080 is both web_port and IMAP"),
        (with_pod(listeners=(contract.ListenerConfig(contract.ListenerName.IMAP, 0),)), "not between 1 and 65535"),
        (with_pod(listeners=POD.listeners * 2), "listener IMAP is there twice"),
        (with_pod(web_port=70000), "web_port 70000"),
        (with_pod(tls_min_version="TLSv1.1"), "must be one of TLSv1.2, TLSv1.3"),
        (with_pod(log_level="Loud"), "log_level must be one of"),
        (with_pod(proxy_trusted_cidrs=("10.0.0.1/8",)), "proxy_trusted_cidrs"),
        (with_pod(peers=("http://x:1",)), "fleet.key: is needed"),
    ],
)
@pytest.mark.case(23)
def test_bad_pod_is_refused(pod, sentence):
    """A pod must not come up half configured, nor with TLS that is too old."""
    assert sentence in refusal(files(pod))


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        (with_box(address="alice@elsewhere.example"), "of a domain in pod.json"),
        (with_box(address="alice"), "is no address"),
        (with_box(address="Alice@example.com"), "in lower case"),
        (with_box(aliases=("x@elsewhere.example",)), "of a domain in pod.json"),
        (with_box(quota_bytes=-1), "must not be negative"),
        (with_box(credentials=ALICE.credentials * 2), "is there twice"),
        (with_box(credentials=(contract.Credential(name="", verifier="plain"),)), "verifier that this pod cannot use"),
        (
            with_box(credentials=(contract.Credential(name="", verifier="$argon2id$v=19$m=99999999,t=9,p=9$AAAAAAAAAAA$AAAA"),)),
            "cannot use",
        ),
        (
            with_box(credentials=(contract.Credential(name="", verifier=VERIFIER, scram=contract.ScramKeys(b"s", 4096, b"", b"")),)),
            "SCRAM keys that this pod cannot use",
        ),
    ],
)
def test_bad_mailbox_is_refused(box, sentence):
    """One bad record refuses the whole change, so that what is in force goes on."""
    assert sentence in refusal(files(POD, box))


def test_one_address_of_two_mailboxes():
    """Mail must never depend on which shard was read first."""
    bob = with_box(address="bob@example.com", aliases=("alice@example.com",))
    assert "alice@example.com is alice@example.com's already" in refusal(files(POD, ALICE, bob))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "pod.json: is not there"),
        ({"pod.json": b""}, "pod.json: "),
        ({"pod.json": b"\xff\xfe"}, "pod.json: "),
        ({"pod.json": b"[]"}, "pod.json: Expected `object`"),
        ({"pod.json": b'{"version":1}'}, "missing required field"),
        ({"pod.json": b'{"version":' + b"[" * 100000}, "pod.json: "),
        ({**files(), "mailboxes-00.json": b"{"}, "mailboxes-00.json: "),
        ({**files(), "mailboxes-00.json": msgspec.json.encode(contract.Shard(1, (ALICE,)))}, "belongs to mailboxes-"),
        ({**files(), "mailboxes-00.json": b'{"version":9}'}, "has version 9"),
        ({**files(), "tls.crt": b"x"}, "one of the two is missing"),
        ({**files(), "tls.crt": b"x", "tls.key": b"y"}, "tls.crt, tls.key: TLS certificate or key is not usable"),
        ({**files(), "s3-access-key-id": b"x"}, "s3-access-key-id, s3-secret-access-key"),
        ({**files(), "fleet.key": b"abc"}, "fleet.key: must be 32 bytes"),
        ({**files(), "fleet.key": b"00" * 31}, "fleet.key: must be 32 bytes"),
    ],
)
def test_broken_files_are_refused(content, sentence):
    """Whatever a mount may hold, the answer is a sentence."""
    assert sentence in refusal(content)


def test_key_of_another_certificate():
    """A half-rotated Secret must not take TLS away."""
    authority = trustme.CA()
    one, two = authority.issue_cert("a.example"), authority.issue_cert("b.example")
    chain = one.cert_chain_pems[0].bytes()
    assert parse({**files(), "tls.crt": chain, "tls.key": one.private_key_pem.bytes()}).certificate
    assert "tls.crt, tls.key" in refusal({**files(), "tls.crt": chain, "tls.key": two.private_key_pem.bytes()})


def test_refusals_are_bounded():
    """A broken file with 10,000 mailboxes must not make a log line of a megabyte."""
    boxes = [with_box(address=f"u{n}@elsewhere.example") for n in range(2000)]
    assert "and " in refusal(files(POD, *boxes))
    assert len(refusal(files(POD, *boxes))) < 10_000


def taken_or_refused(content: dict[str, bytes]) -> None:
    faults: tuple[str, ...] = ("taken",)
    try:
        parse(content)
    except ConfigError as error:
        faults = error.faults
    assert all(faults)


@given(st.binary(max_size=200), st.sampled_from(["pod.json", "mailboxes-00.json", "tls.crt", "tls.key", "fleet.key", "s3-access-key-id"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_any_file(data, name):
    """Configuration is taken or refused, never a crash."""
    taken_or_refused({**files(POD, ALICE), name: data})


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_damage_to_pod_json(data):
    """A single changed byte is taken or refused, never a crash."""
    content = bytearray(files(POD, ALICE)["pod.json"])
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    taken_or_refused({**files(POD, ALICE), "pod.json": bytes(content)})


def test_plain_folder(tmp_path):
    """On a laptop people write files by hand."""
    (tmp_path / "pod.json").write_bytes(b"1")
    (tmp_path / ".hidden").write_bytes(b"2")
    (tmp_path / "sub").mkdir()
    directory = ConfigDirectory(tmp_path)
    assert directory.read() == {"pod.json": b"1"}
    assert directory.changed()
    assert not directory.changed()
    (tmp_path / "pod.json").write_bytes(b"22")
    assert directory.changed()


def test_empty_folder_is_an_error(tmp_path):
    """A mount that is not there yet must not count as "no mailboxes"."""
    with pytest.raises(FileNotFoundError, match="holds no configuration"):
        ConfigDirectory(tmp_path).read()
    with pytest.raises(OSError, match="nowhere"):
        ConfigDirectory(tmp_path / "nowhere").read()


def test_bounds(tmp_path):
    """A wrong mount (a home directory, say) is noticed before it fills memory."""
    (tmp_path / "big").write_bytes(b"x" * (limits.CONFIG_FILE_BYTES_MAX + 1))
    with pytest.raises(OSError, match="larger than"):
        ConfigDirectory(tmp_path).read()
    (tmp_path / "big").unlink()
    for number in range(limits.CONFIG_FILES_MAX + 1):
        (tmp_path / f"f{number}").write_bytes(b"")
    with pytest.raises(OSError, match="more than"):
        ConfigDirectory(tmp_path).read()


def test_swap_while_reading(tmp_path, monkeypatch):
    """The kubelet swaps `..data` and removes the old folder whenever it likes: the new files are read, not half of the old."""
    old, new = tmp_path / "..1", tmp_path / "..2"
    for folder, text in ((old, b"old"), (new, b"new")):
        folder.mkdir()
        (folder / "a").write_bytes(text)
        (folder / "b").write_bytes(text)
    link = tmp_path / "..data"
    link.symlink_to("..1")
    original = Path.is_file
    swapped: list[bool] = []

    def is_file(path: Path) -> bool:
        if path.name == "b" and not swapped:
            swapped.append(True)
            link.unlink()
            link.symlink_to("..2")
            (old / "b").unlink()
        return original(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert ConfigDirectory(tmp_path).read() == {"a": b"new", "b": b"new"}
    assert swapped

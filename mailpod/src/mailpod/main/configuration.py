"""The files of `mailpod.contract` to one checked whole, or a refusal that names everything that is wrong. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeVar

import msgspec

from mailpod import contract
from mailpod.adapters.objects import Credentials
from mailpod.auth import verifiers
from mailpod.main.logs import LEVELS
from mailpod.servers.tls import KeyPair, make_context

TLS_VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
MESSAGE_BYTES_MAX: Final = 1024**3
FAULTS_SHOWN_MAX: Final = 20  # of a refusal; a broken file can have one a mailbox


T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(Exception):
    """A configuration that is not taken, as a whole. `faults` are sentences, each beginning with the file's name."""

    def __init__(self, faults: list[str]) -> None:
        shown = faults[:FAULTS_SHOWN_MAX]
        super().__init__("; ".join(shown) + (f"; and {len(faults) - len(shown)} more" if len(faults) > len(shown) else ""))
        self.faults = tuple(shown)


class Configuration(NamedTuple):
    """One configuration, checked."""

    pod: contract.PodConfig
    mailboxes: tuple[contract.MailboxConfig, ...]
    certificate: KeyPair | None  # None: the pod makes its own
    credentials: Credentials | None  # None: the environment's identity
    s3_ca: bytes | None
    fleet_key: bytes | None
    digest: str  # of all files

    def __repr__(self) -> str:
        return f"Configuration({self.pod.generation}, {len(self.mailboxes)} mailboxes)"


class _Versioned(msgspec.Struct):
    version: int


def digest_of(files: Mapping[str, bytes]) -> str:
    """Changes whenever a file does."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()


def parse(files: Mapping[str, bytes]) -> Configuration:
    """The configuration that `files` make. Raises ConfigError."""
    faults: list[str] = []
    pod = _decode("pod.json", files, contract.PodConfig, faults)
    boxes: list[contract.MailboxConfig] = []
    for name in sorted(files):
        if name.startswith("mailboxes-") and name.endswith(".json"):
            shard = _decode(name, files, contract.Shard, faults)
            number = name.removeprefix("mailboxes-").removesuffix(".json")
            for box in shard.mailboxes if shard is not None else ():
                if f"{contract.shard_of(box.address):02x}" != number:
                    faults.append(f"{name}: {box.address} belongs to mailboxes-{contract.shard_of(box.address):02x}.json")
                boxes.append(box)
    if pod is not None:
        faults.extend(f"pod.json: {fault}" for fault in _pod_faults(pod))
        faults.extend(_mailbox_faults(boxes, pod))
    certificate, credentials, fleet_key = _secrets(files, faults)
    if pod is not None and pod.peers and fleet_key is None:
        faults.append("fleet.key: is needed where pod.json names peers")
    if pod is None or faults:
        raise ConfigError(faults)
    ca = files.get("s3-ca.crt")
    return Configuration(pod, tuple(boxes), certificate, credentials, ca, fleet_key, digest_of(files))


def _decode(name: str, files: Mapping[str, bytes], kind: type[T], faults: list[str]) -> T | None:
    data = files.get(name)
    if data is None:
        faults.append(f"{name}: is not there")
        return None
    try:
        # The version first: a newer format may differ in anything else.
        version = msgspec.json.decode(data, type=_Versioned).version
        if version > contract.VERSION:
            faults.append(f"{name}: has version {version}, this pod reads up to {contract.VERSION}; roll the pods' image first")
            return None
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        faults.append(f"{name}: {error}")
        return None


def _pod_faults(pod: contract.PodConfig) -> Iterator[str]:
    owners: dict[str, str] = {}
    for domain in pod.domains:
        for name in (domain.domain, *domain.alias_domains):
            if name in owners:
                yield f"{name} is a domain of both {owners[name]} and {domain.domain}"
            if not name or name != name.lower() or "@" in name:
                yield f"{name!r} is no domain in lower case"
            owners[name] = domain.domain
        if not 1024 <= domain.max_message_bytes <= MESSAGE_BYTES_MAX:
            yield f"{domain.domain}: max_message_bytes must be between 1024 and {MESSAGE_BYTES_MAX}"
        if len(domain.recipient_delimiter) > 1:
            yield f"{domain.domain}: recipient_delimiter must be one character or none"
    ports: dict[int, str] = {pod.web_port: "web_port"}
    names: set[str] = set()
    for listener in pod.listeners:
        if listener.name in names:
            yield f"listener {listener.name} is there twice"
        names.add(listener.name)
        if not 1 <= listener.port <= 65535:
            yield f"listener {listener.name}: port {listener.port} is not between 1 and 65535"
        if listener.port in ports:
            yield f"port {listener.port} is both {ports[listener.port]} and {listener.name}"
        ports[listener.port] = listener.name
    if not 1 <= pod.web_port <= 65535:
        yield f"web_port {pod.web_port} is not between 1 and 65535"
    if not pod.hostname or not pod.hostname.isascii() or any(char.isspace() for char in pod.hostname):
        yield f"hostname {pod.hostname!r} is no host name"
    if not pod.storage.bucket:
        yield "storage.bucket is empty"
    if pod.storage.retention_seconds < 0 or pod.storage.cache_bytes < 0:
        yield "storage: retention_seconds and cache_bytes must not be negative"
    if pod.tls_min_version not in TLS_VERSIONS:
        yield f"tls_min_version must be one of {', '.join(TLS_VERSIONS)}; not {pod.tls_min_version!r}"
    if pod.log_level not in LEVELS:
        yield f"log_level must be one of {', '.join(LEVELS)}; not {pod.log_level!r}"
    for cidr in pod.proxy_trusted_cidrs:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            yield f"proxy_trusted_cidrs: {error}"


def _mailbox_faults(boxes: list[contract.MailboxConfig], pod: contract.PodConfig) -> Iterator[str]:
    domains = {domain.domain for domain in pod.domains}
    owners: dict[str, str] = {}
    for box in boxes:
        name = f"mailboxes-{contract.shard_of(box.address):02x}.json: {box.address}"
        for address in (box.address, *box.aliases):
            local, at, domain = address.rpartition("@")
            if not at or not local or domain not in domains or address != address.lower():
                yield f"{name}: {address!r} is no address, in lower case, of a domain in pod.json"
            if owners.setdefault(address, box.address) != box.address:
                yield f"{name}: {address} is {owners[address]}'s already"
        if box.quota_bytes < 0:
            yield f"{name}: quota_bytes must not be negative"
        seen: set[str] = set()
        for credential in box.credentials:
            if credential.name in seen:
                yield f"{name}: the credential {credential.name!r} is there twice"
            seen.add(credential.name)
            if not _verifier_is_usable(credential.verifier):
                yield f"{name}: the credential {credential.name!r} has a verifier that this pod cannot use"
            scram = credential.scram
            if scram is not None and (scram.iterations < 1 or len(scram.stored_key) != 32 or len(scram.server_key) != 32):
                yield f"{name}: the credential {credential.name!r} has SCRAM keys that this pod cannot use"
    addresses = {box.address for box in boxes}
    for domain_config in pod.domains:
        for role, target in (("catch_all", domain_config.catch_all), ("role_mailbox", domain_config.role_mailbox)):
            # Only a form error is one: the shard that holds the mailbox may arrive a moment later than pod.json.
            if target is not None and target not in addresses and "@" not in target:
                yield f"pod.json: {domain_config.domain}: {role} {target!r} is no address"


def _verifier_is_usable(verifier: str) -> bool:
    if verifier.startswith(verifiers.ARGON2_PREFIX):
        return verifiers.argon2_within_limits(verifier)
    return verifier.startswith(verifiers.SHA256_PREFIX) and len(verifier.split("$")) == 4


def _secrets(files: Mapping[str, bytes], faults: list[str]) -> tuple[KeyPair | None, Credentials | None, bytes | None]:
    certificate = None
    if ("tls.crt" in files) != ("tls.key" in files):
        faults.append("tls.crt, tls.key: one of the two is missing")
    elif "tls.crt" in files:
        certificate = KeyPair(files["tls.crt"], files["tls.key"])
        try:
            # An expired certificate is taken: refusing it would make no mail safer.
            make_context(certificate, TLS_VERSIONS[0])
        except ValueError as error:
            faults.append(f"tls.crt, tls.key: {error}")
    credentials = None
    keys = [files.get(name, b"").strip() for name in ("s3-access-key-id", "s3-secret-access-key")]
    if all(keys) and all(key.isascii() for key in keys):
        credentials = Credentials(keys[0].decode(), keys[1].decode())
    elif any(keys):
        faults.append("s3-access-key-id, s3-secret-access-key: one of the two is missing or not ASCII")
    fleet_key = None
    if "fleet.key" in files:
        try:
            fleet_key = bytes.fromhex(files["fleet.key"].decode().strip())
        except ValueError:
            fleet_key = b""
        if len(fleet_key) != 32:
            faults.append("fleet.key: must be 32 bytes in hexadecimal")
    return certificate, credentials, fleet_key

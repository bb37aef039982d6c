"""The pod's configuration (`mailpod.contract`) from resources and Secrets. Pure: the same input gives the same bytes, in any order.

A resource that is wrong is left out and named in `problems`; the others are served. Only when the fleet itself cannot be configured
(no bucket credentials, no certificate where one was named) there are no files, and what is in force stays in force.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mailoperator.api.documents import Resources
from mailoperator.api.mailbox import Mailbox
from mailoperator.api.maildomain import DEFAULT_LISTENERS, STANDARD_PORTS, MailDomain, Pods
from mailoperator.api.names import normal_local
from mailoperator.api.problems import Problem
from mailoperator.api.quantities import parse_duration, parse_quantity
from mailoperator.api.resources import MANAGED_BY, MANAGED_BY_LABEL, ObjectMeta, Ref, Secret
from mailoperator.desired import verifiers
from mailoperator.desired.claims import Addresses, Domains, Key, claim_addresses, claim_domains, role_locals
from mailpod import contract

CREDENTIALS_SUFFIX: Final = "-credentials"
PASSWORD_BYTES_MAX: Final = 1024  # a verifier takes any length, a login line does not


class Keys(NamedTuple):
    """The fleet's own secrets, 32 bytes each."""

    fleet: bytes  # given to the pods: they know each other by it
    fingerprint: bytes  # never leaves the operator: see `desired.verifiers`


class Placement(NamedTuple):
    """What the resources do not say, because the operator (or the command line) decides it."""

    web_port: int = 8080
    peers: tuple[str, ...] = ()


@dataclass(slots=True)
class Rendered:
    """The outcome."""

    files: dict[str, bytes] | None  # by name; None: the fleet cannot be configured
    generation: str = ""
    made: tuple[Secret, ...] = ()  # Secrets of generated passwords that are new
    problems: list[Problem] = field(default_factory=list)


def build(
    resources: Resources,
    fleet: Key,
    keys: Keys,
    entropy: Callable[[int], bytes],
    placement: Placement,
    previous: Mapping[tuple[str, str], contract.Credential],
) -> Rendered:
    """The files of the fleet whose pods the MailDomain `fleet` runs. `previous`: credentials in force, by address and name."""
    domains = claim_domains(resources.domains)
    secrets = {secret.metadata.key: secret for secret in resources.secrets}
    result = Rendered(None, problems=[*resources.problems, *domains.problems])
    root = domains.served.get(fleet)
    if root is None or root.spec.pods is None:
        if not any((problem.namespace, problem.name) == fleet for problem in result.problems):
            message = "there is no such MailDomain with spec.pods"
            result.problems.append(Problem("MailDomain", *fleet, "", "NotFound", message))
        return result
    addresses = claim_addresses(resources.mailboxes, domains, fleet)
    result.problems += addresses.problems
    vault = _Vault(secrets, keys.fingerprint, entropy, previous, result.problems)
    boxes = [_mailbox(key, box, domains, addresses, vault) for key, box in addresses.mailboxes.items()]
    files = _secret_files(root, root.spec.pods, keys, secrets, result.problems)
    if files is None:
        return result
    files.update(_shards(boxes))
    config = _pod(root.spec.pods, domains, addresses, fleet, placement, result.problems)
    result.generation = generation_of({**files, "pod.json": _json(config)})
    files["pod.json"] = _json(msgspec.structs.replace(config, generation=result.generation))
    result.files, result.made = files, tuple(vault.made)
    return result


def generation_of(files: Mapping[str, bytes]) -> str:
    """A name for exactly this content."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()[:16]


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic") + b"\n"


def _pod(
    pods: Pods, domains: Domains, addresses: Addresses, fleet: Key, placement: Placement, problems: list[Problem]
) -> contract.PodConfig:
    s3 = pods.storage.s3
    if pods.listeners is None:
        listeners = [contract.ListenerConfig(name, STANDARD_PORTS[name]) for name in DEFAULT_LISTENERS]
    else:
        named = [(contract.ListenerName(listener.name), listener.port) for listener in pods.listeners]
        listeners = [contract.ListenerConfig(name, STANDARD_PORTS[name] if port is None else port) for name, port in named]
    hosted = [domain for key, domain in domains.served.items() if domains.hosts[key] == fleet]
    return contract.PodConfig(
        version=contract.VERSION,
        generation="",
        hostname=pods.hostname,
        domains=tuple(_domain(domain, domains, addresses, problems) for domain in sorted(hosted, key=lambda domain: domain.spec.domain)),
        storage=contract.StorageConfig(
            bucket=s3.bucket,
            endpoint=s3.endpoint,
            region=s3.region,
            prefix=s3.prefix,
            force_path_style=s3.force_path_style,
            server_side_encryption=s3.server_side_encryption,
            kms_key_id=s3.kms_key_id,
            retention_seconds=parse_duration(pods.storage.retention),
            cache_bytes=parse_quantity(pods.storage.cache_size),
        ),
        listeners=tuple(sorted(listeners, key=lambda listener: list(STANDARD_PORTS).index(listener.name))),
        web_port=placement.web_port,
        peers=placement.peers,
        proxy_trusted_cidrs=tuple(sorted(pods.proxy_protocol.trusted_cidrs)) if pods.proxy_protocol else (),
        tls_min_version=pods.tls.min_version,
        log_level=pods.log_level,
    )


def _domain(domain: MailDomain, domains: Domains, addresses: Addresses, problems: list[Problem]) -> contract.DomainConfig:
    spec, key = domain.spec, domain.metadata.key

    def named(path: str, ref: Ref | None) -> str | None:
        if ref is None:
            return None
        address = addresses.address.get((key[0], ref.name))
        if address is None:
            problems.append(Problem("MailDomain", *key, path, "MailboxNotFound", f"there is no Mailbox {ref.name} that these pods serve"))
        return address

    return contract.DomainConfig(
        domain=spec.domain,
        alias_domains=domains.aliases[key],
        catch_all=named("spec.catchAllMailboxRef", spec.catch_all_mailbox_ref),
        # postmaster@ always reaches somebody: the domain's oldest mailbox where nobody is named.
        role_mailbox=named("spec.roles.mailboxRef", spec.roles.mailbox_ref) or addresses.oldest_of(spec.domain),
        role_addresses=tuple(sorted(role_locals(domain))),
        max_message_bytes=parse_quantity(spec.inbound.max_message_size),
        recipient_delimiter=spec.inbound.recipient_delimiter,
    )


def _mailbox(key: Key, box: Mailbox, domains: Domains, addresses: Addresses, vault: _Vault) -> contract.MailboxConfig:
    spec = box.spec
    defaults = domains.served[(key[0], spec.domain_ref.name)].spec.mailbox_defaults
    protocols = tuple(contract.Protocol(name) for name in (defaults.protocols if spec.protocols is None else spec.protocols))
    address = addresses.address[key]
    return contract.MailboxConfig(
        address=address,
        aliases=addresses.aliases[key],
        display_name=normal_local(spec.display_name),
        quota_bytes=parse_quantity(defaults.quota if spec.quota is None else spec.quota),
        protocols=tuple(sorted(protocols)),
        state=contract.MailboxState(spec.state),
        credentials=vault.credentials(key, box, address) if protocols else (),
    )


def _shards(boxes: list[contract.MailboxConfig]) -> dict[str, bytes]:
    shards: defaultdict[int, list[contract.MailboxConfig]] = defaultdict(list)
    for box in sorted(boxes, key=lambda box: box.address):
        shards[contract.shard_of(box.address)].append(box)
    return {
        f"mailboxes-{number:02x}.json": _json(contract.Shard(version=contract.VERSION, mailboxes=tuple(shard)))
        for number, shard in shards.items()
    }


class _Vault:
    """Turns the Secrets of mailboxes into verifiers."""

    def __init__(
        self,
        secrets: Mapping[Key, Secret],
        key: bytes,
        entropy: Callable[[int], bytes],
        previous: Mapping[tuple[str, str], contract.Credential],
        problems: list[Problem],
    ) -> None:
        self._secrets = secrets
        self._key = key
        self._entropy = entropy
        self._previous = previous
        self._problems = problems
        self.made: list[Secret] = []

    def credentials(self, key: Key, box: Mailbox, address: str) -> tuple[contract.Credential, ...]:
        own = self._generated(key, box, address) if box.spec.password is None else self._given(key, box, address)
        found = [own] if own is not None else []
        for index, app in enumerate(box.spec.app_passwords):
            ref = app.secret_ref
            password = self._password(key, ref.name, ref.key or "password", f"spec.appPasswords[{index}].secretRef")
            if password is not None:
                protocols = None if app.protocols is None else tuple(sorted(contract.Protocol(name) for name in app.protocols))
                old = self._previous.get((address, app.name))
                found.append(verifiers.given(self._key, address, app.name, password, protocols, old))
        return tuple(found)

    def _given(self, key: Key, box: Mailbox, address: str) -> contract.Credential | None:
        assert box.spec.password is not None
        ref = box.spec.password.secret_ref
        password = self._password(key, ref.name, ref.key or "password", "spec.password.secretRef")
        if password is None:
            return None
        if box.spec.password.format == "PHC":
            if fault := verifiers.phc_fault(password):
                self._problem(key, "spec.password.secretRef", "CredentialsInvalid", f"Secret {ref.name}: {fault}")
                return None
            return contract.Credential(name="", verifier=password)
        return verifiers.given(self._key, address, "", password, None, self._previous.get((address, "")))

    def _generated(self, key: Key, box: Mailbox, address: str) -> contract.Credential | None:
        name = box.metadata.name + CREDENTIALS_SUFFIX
        secret = self._secrets.get((key[0], name))
        if secret is None:
            password = verifiers.generate(self._entropy(verifiers.GENERATED_BYTES))
            meta = ObjectMeta(name=name, namespace=key[0], labels={MANAGED_BY_LABEL: MANAGED_BY})
            self.made.append(Secret(metadata=meta, values={"address": address.encode(), "password": password.encode()}))
            return verifiers.generated(self._key, address, password, None)
        if not secret.ours:
            # Never taken over: it may be anybody's.
            message = f"Secret {name} was not made by the operator; name it in spec.password.secretRef, or rename it"
            self._problem(key, "spec.password", "NameTaken", message)
            return None
        made = self._password(key, name, "password", "spec.password")
        return None if made is None else verifiers.generated(self._key, address, made, self._previous.get((address, "")))

    def _password(self, key: Key, name: str, entry: str, path: str) -> str | None:
        secret = self._secrets.get((key[0], name))
        if secret is None:
            self._problem(key, path, "SecretNotFound", f"there is no Secret {name} in this namespace")
            return None
        value = secret.values.get(entry)
        if value is None:
            self._problem(key, path, "SecretNotFound", f"Secret {name} has no key {entry}")
            return None
        try:
            # A file made with an editor, and `--from-file`, end in a line end that nobody types.
            text = value.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            text = ""
        if not text or len(text.encode()) > PASSWORD_BYTES_MAX or not text.isprintable():
            message = f"Secret {name}, key {entry}: must be 1 to {PASSWORD_BYTES_MAX} bytes of printable UTF-8"
            self._problem(key, path, "CredentialsInvalid", message)
            return None
        return text

    def _problem(self, key: Key, path: str, reason: str, message: str) -> None:
        self._problems.append(Problem("Mailbox", *key, path, reason, message))


def _secret_files(
    root: MailDomain, pods: Pods, keys: Keys, secrets: Mapping[Key, Secret], problems: list[Problem]
) -> dict[str, bytes] | None:
    """The files that are copied from Secrets; None when one that was named is not there or is wrong."""
    files = {"fleet.key": keys.fleet.hex().encode() + b"\n"}
    before = len(problems)

    def take(path: str, name: str, wanted: dict[str, str]) -> None:
        secret = secrets.get((root.metadata.namespace, name))
        for entry, file in wanted.items():
            value = secret.values.get(entry, b"") if secret is not None else b""
            if value.strip():
                files[file] = value.strip() + b"\n"
            else:
                message = f"there is no Secret {name} in this namespace" if secret is None else f"Secret {name} has no key {entry}"
                problems.append(Problem("MailDomain", *root.metadata.key, path, "SecretNotFound", message))

    s3 = pods.storage.s3
    if s3.credentials_secret_ref is not None:
        entries = {"AWS_ACCESS_KEY_ID": "s3-access-key-id", "AWS_SECRET_ACCESS_KEY": "s3-secret-access-key"}
        take("spec.pods.storage.s3.credentialsSecretRef", s3.credentials_secret_ref.name, entries)
    if s3.ca_secret_ref is not None:
        take("spec.pods.storage.s3.caSecretRef", s3.ca_secret_ref.name, {s3.ca_secret_ref.key or "ca.crt": "s3-ca.crt"})
    if pods.tls.secret_ref is not None:
        take("spec.pods.tls.secretRef", pods.tls.secret_ref.name, {"tls.crt": "tls.crt", "tls.key": "tls.key"})
        if "tls.crt" in files and "tls.key" in files and (fault := _certificate_fault(files["tls.crt"], files["tls.key"])):
            path = "spec.pods.tls.secretRef"
            problems.append(Problem("MailDomain", *root.metadata.key, path, "CertificateInvalid", fault))
    return files if len(problems) == before else None


def _certificate_fault(certificate: bytes, key: bytes) -> str:
    spki: Any = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        return f"must hold a PEM certificate chain and its unencrypted PEM key ({type(error).__name__})"
    same = leaf.public_key().public_bytes(*spki) == private.public_key().public_bytes(*spki)
    return "" if same else "the key in tls.key is not that of the first certificate in tls.crt"

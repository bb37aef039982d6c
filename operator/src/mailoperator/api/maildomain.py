"""MailDomain: one domain, and either the pods that serve it or the domain on whose pods it rides."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

import msgspec

from mailoperator.api.names import domain_fault, domain_object_fault, local_fault, object_fault
from mailoperator.api.quantities import Quantity, parse_duration, parse_quantity
from mailoperator.api.resources import Fault, Ref, Resource, SecretKeyRef
from mailpod.contract import ListenerName, Protocol

ROLE_ADDRESSES: Final = ("postmaster", "abuse", "hostmaster", "webmaster", "admin", "administrator", "security", "noc")
STANDARD_PORTS: Final = {
    ListenerName.SMTP: 25,
    ListenerName.SUBMISSION: 587,
    ListenerName.SUBMISSIONS: 465,
    ListenerName.IMAP: 143,
    ListenerName.IMAPS: 993,
    ListenerName.POP3: 110,
    ListenerName.POP3S: 995,
}
# What is open when `listeners` is left out: all but POP3.
DEFAULT_LISTENERS: Final = tuple(name for name in STANDARD_PORTS if not name.startswith("POP3"))
DEFAULT_QUOTA: Final = "5Gi"
DEFAULT_PROTOCOLS: Final = (Protocol.IMAP, Protocol.SUBMISSION)
LOG_LEVELS: Final = ("Debug", "Info", "Warning", "Error")
TLS_VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
ENCRYPTIONS: Final = ("AES256", "aws:kms", "aws:kms:dsse")
ALIAS_DOMAINS_MAX: Final = 64
MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX = 64 * 1024, 1024**3


class S3(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """The bucket."""

    bucket: str
    endpoint: str | None = None
    region: str = "us-east-1"
    prefix: str = ""
    credentials_secret_ref: Ref | None = None
    ca_secret_ref: SecretKeyRef | None = None
    force_path_style: bool = False
    server_side_encryption: str | None = None
    kms_key_id: str | None = msgspec.field(name="kmsKeyID", default=None)


class Storage(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Where mail is kept, and for how long what was deleted can be had back."""

    s3: S3
    retention: str = "14d"
    cache_size: Quantity = "1Gi"


class Tls(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """The listeners' certificate; without a Secret, pods make their own."""

    secret_ref: Ref | None = None
    min_version: str = "TLSv1.2"


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One open port; a port left out is the protocol's own."""

    name: str
    port: int | None = None


class ProxyProtocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Load balancers whose PROXY protocol header is believed."""

    trusted_cidrs: tuple[str, ...] = msgspec.field(name="trustedCIDRs")


class Pods(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """The fleet."""

    hostname: str
    storage: Storage
    tls: Tls = Tls()
    listeners: tuple[Listener, ...] | None = None
    proxy_protocol: ProxyProtocol | None = None
    log_level: str = "Info"


class Inbound(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Rules for mail that comes in."""

    max_message_size: Quantity = "50Mi"
    recipient_delimiter: str = "+"


class Roles(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Who reads postmaster@, abuse@ and the like."""

    mailbox_ref: Ref | None = None
    addresses: tuple[str, ...] = ROLE_ADDRESSES


class MailboxDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a Mailbox has where it says nothing."""

    quota: Quantity = DEFAULT_QUOTA
    protocols: tuple[str, ...] = DEFAULT_PROTOCOLS


class MailDomainSpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What the administrator wants of a domain."""

    domain: str
    alias_domains: tuple[str, ...] = ()
    pods: Pods | None = None
    hosted_by_ref: Ref | None = None
    inbound: Inbound = Inbound()
    catch_all_mailbox_ref: Ref | None = None
    roles: Roles = Roles()
    mailbox_defaults: MailboxDefaults = MailboxDefaults()


MailDomain = Resource[MailDomainSpec]


def faults(resource: MailDomain) -> Iterator[Fault]:
    """Every static rule that the resource breaks."""
    spec = resource.spec
    yield from _say("metadata.name", domain_object_fault(resource.metadata.name))
    yield from _say("spec.domain", domain_fault(spec.domain))
    if len(spec.alias_domains) > ALIAS_DOMAINS_MAX:
        yield Fault("spec.aliasDomains", f"must be at most {ALIAS_DOMAINS_MAX}, not {len(spec.alias_domains)}")
    for index, alias in enumerate(spec.alias_domains):
        yield from _say(f"spec.aliasDomains[{index}]", domain_fault(alias))
        if alias == spec.domain or alias in spec.alias_domains[:index]:
            yield Fault(f"spec.aliasDomains[{index}]", f"{alias} is there twice")
    if (spec.pods is None) == (spec.hosted_by_ref is None):
        yield Fault("spec", "must have exactly one of pods (runs mail pods) and hostedByRef (rides on another MailDomain's)")
    if spec.hosted_by_ref is not None:
        yield from _say("spec.hostedByRef.name", domain_object_fault(spec.hosted_by_ref.name))
    if spec.pods is not None:
        yield from _pods_faults(spec.pods)
    yield from _inbound_faults(spec.inbound)
    for index, address in enumerate(spec.roles.addresses):
        yield from _say(f"spec.roles.addresses[{index}]", local_fault(address))
    for path, ref in (("spec.roles.mailboxRef", spec.roles.mailbox_ref), ("spec.catchAllMailboxRef", spec.catch_all_mailbox_ref)):
        if ref is not None:
            yield from _say(f"{path}.name", object_fault(ref.name))
    yield from quota_faults("spec.mailboxDefaults.quota", spec.mailbox_defaults.quota)
    yield from protocol_faults("spec.mailboxDefaults.protocols", spec.mailbox_defaults.protocols)


def _pods_faults(pods: Pods) -> Iterator[Fault]:
    yield from _say("spec.pods.hostname", domain_fault(pods.hostname))
    yield from _storage_faults(pods.storage)
    yield from one_of("spec.pods.tls.minVersion", pods.tls.min_version, TLS_VERSIONS)
    yield from one_of("spec.pods.logLevel", pods.log_level, LOG_LEVELS)
    if pods.listeners is not None:
        yield from _listener_faults(pods.listeners)
    for index, cidr in enumerate(pods.proxy_protocol.trusted_cidrs if pods.proxy_protocol else ()):
        try:
            if "/" not in cidr:
                raise ValueError("no prefix length")
            ipaddress.ip_network(cidr)
        except ValueError:
            message = f"must be a network such as 10.0.0.0/24 or 2001:db8::/64, without host bits; not {cidr!r}"
            yield Fault(f"spec.pods.proxyProtocol.trustedCIDRs[{index}]", message)


def _storage_faults(storage: Storage) -> Iterator[Fault]:
    path, s3 = "spec.pods.storage", storage.s3
    if not 3 <= len(s3.bucket) <= 63 or not all(char.isascii() and (char.isalnum() or char in ".-") for char in s3.bucket):
        yield Fault(f"{path}.s3.bucket", f"must be a bucket name: 3 to 63 letters, digits, . and -; not {s3.bucket!r}")
    if s3.endpoint is not None and not s3.endpoint.startswith(("https://", "http://")):
        yield Fault(f"{path}.s3.endpoint", f"must be a URL that begins with https:// or http://; not {s3.endpoint!r}")
    if s3.prefix.startswith("/") or "//" in s3.prefix or len(s3.prefix) > 256 or not s3.prefix.isprintable():
        yield Fault(f"{path}.s3.prefix", "must be a key prefix without a leading / or //, at most 256 characters")
    if s3.server_side_encryption is not None:
        yield from one_of(f"{path}.s3.serverSideEncryption", s3.server_side_encryption, ENCRYPTIONS)
    if s3.kms_key_id is not None and s3.server_side_encryption not in ENCRYPTIONS[1:]:
        yield Fault(f"{path}.s3.kmsKeyID", "needs serverSideEncryption aws:kms or aws:kms:dsse")
    yield from duration_faults(f"{path}.retention", storage.retention, 86400, 3650 * 86400, "1d and 3650d")
    yield from size_faults(f"{path}.cacheSize", storage.cache_size, 16 * 1024**2, 2**50, "16Mi and 1Pi")


def _listener_faults(listeners: tuple[Listener, ...]) -> Iterator[Fault]:
    names: set[str] = set()
    ports: dict[int, str] = {}
    if not listeners:
        yield Fault("spec.pods.listeners", "must list at least one listener; left out, all but POP3 and POP3S are open")
    for index, listener in enumerate(listeners):
        path = f"spec.pods.listeners[{index}]"
        wrong = list(one_of(f"{path}.name", listener.name, tuple(STANDARD_PORTS)))
        yield from wrong
        if wrong:
            continue
        if listener.name in names:
            yield Fault(f"{path}.name", f"{listener.name} is there twice")
        names.add(listener.name)
        port = STANDARD_PORTS[ListenerName(listener.name)] if listener.port is None else listener.port
        if not 1 <= port <= 65535:
            yield Fault(f"{path}.port", f"must be between 1 and 65535, not {port}")
        if port in ports:
            yield Fault(f"{path}.port", f"{port} is {ports[port]}'s already")
        ports[port] = listener.name


def _inbound_faults(inbound: Inbound) -> Iterator[Fault]:
    yield from size_faults("spec.inbound.maxMessageSize", inbound.max_message_size, MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX, "64Ki and 1Gi")
    delimiter = inbound.recipient_delimiter
    if delimiter and (len(delimiter) != 1 or delimiter not in "+-_=~"):
        yield Fault("spec.inbound.recipientDelimiter", f"must be one of + - _ = ~, or empty for no tags; not {delimiter!r}")


def _say(path: str, message: str) -> Iterator[Fault]:
    if message:
        yield Fault(path, message)


def one_of(path: str, value: str, allowed: tuple[str, ...]) -> Iterator[Fault]:
    """A fault unless `value` is one of `allowed`."""
    if value not in allowed:
        yield Fault(path, f"must be one of {', '.join(allowed)}; not {value!r}")


def size_faults(path: str, value: Quantity, least: int, most: int, between: str) -> Iterator[Fault]:
    """A fault unless `value` is a size between `least` and `most` bytes; `between` says that for a person."""
    try:
        if not least <= parse_quantity(value) <= most:
            yield Fault(path, f"must be between {between}, not {value}")
    except ValueError as error:
        yield Fault(path, str(error))


def duration_faults(path: str, value: str, least: int, most: int, between: str) -> Iterator[Fault]:
    """A fault unless `value` is a duration between `least` and `most` seconds; `between` says that for a person."""
    try:
        if not least <= parse_duration(value) <= most:
            yield Fault(path, f"must be between {between}, not {value}")
    except ValueError as error:
        yield Fault(path, str(error))


def quota_faults(path: str, value: Quantity) -> Iterator[Fault]:
    """A fault unless `value` is a quota."""
    yield from size_faults(path, value, 1024**2, 2**60, "1Mi and 1024Pi")


def protocol_faults(path: str, protocols: tuple[str, ...]) -> Iterator[Fault]:
    """Faults of a list of protocols."""
    for index, protocol in enumerate(protocols):
        yield from one_of(f"{path}[{index}]", protocol, tuple(Protocol))
        if protocol in protocols[:index]:
            yield Fault(f"{path}[{index}]", f"{protocol} is there twice")

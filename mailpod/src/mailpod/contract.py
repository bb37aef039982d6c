"""The configuration that the operator writes and the pod reads: versioned, frozen, and the only thing both sides share.

A pod is given a directory of files (a projected volume of Secrets in a cluster, a folder on a laptop):

| file | content |
|---|---|
| `pod.json` | `PodConfig` |
| `mailboxes-00.json` … `mailboxes-3f.json` | `Shard`; a missing one is empty |
| `tls.crt`, `tls.key` | the listeners' certificate chain and key, PEM; left out: the pod makes its own at start |
| `s3-access-key-id`, `s3-secret-access-key` | the bucket's credentials; left out: the environment's identity |
| `s3-ca.crt` | PEM bundle to trust for the bucket's endpoint; left out: the system's |
| `fleet.key` | 32 bytes, hex: authenticates pods of one fleet to each other |

Unknown fields are ignored when reading (an older pod reads a newer operator's file); a newer `version` is refused.
"""

from __future__ import annotations

import enum
import zlib

import msgspec

VERSION = 1
SHARDS = 64  # a Secret holds 1 MiB; mailboxes are hashed onto this many, so that one change rewrites one


class Protocol(enum.StrEnum):
    """What a mailbox's owner may log in by."""

    IMAP = "IMAP"
    POP3 = "POP3"
    SUBMISSION = "Submission"


class MailboxState(enum.StrEnum):
    """What happens to a mailbox's mail and logins."""

    ACTIVE = "Active"
    LOCKED = "Locked"  # mail arrives; no login, no sending
    SUSPENDED = "Suspended"  # mail is refused with 550 as well


class ListenerName(enum.StrEnum):
    """The listeners that a pod may open."""

    SMTP = "SMTP"
    SUBMISSION = "Submission"
    SUBMISSIONS = "Submissions"
    IMAP = "IMAP"
    IMAPS = "IMAPS"
    POP3 = "POP3"
    POP3S = "POP3S"


class ScramKeys(msgspec.Struct, frozen=True):
    """SCRAM-SHA-256 verifier (RFC 5802 §3, RFC 7677): no password can be had from it without guessing."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class Credential(msgspec.Struct, frozen=True):
    """A verifier of one password; the password itself never leaves the operator.

    `verifier` is a PHC string: `$argon2id$…`, or `$sha256$<salt>$<digest>` (both base64 without padding) for generated passwords,
    which carry 128 bits and need no slow hash.
    """

    name: str  # "" for the mailbox's own password, else the app password's name
    verifier: str
    scram: ScramKeys | None = None
    protocols: tuple[Protocol, ...] | None = None  # None: all of the mailbox's


class MailboxConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One mailbox of the fleet."""

    address: str  # local@domain, lower case, NFC; also the identity of its account in the bucket
    aliases: tuple[str, ...] = ()  # full addresses, lower case
    display_name: str = ""
    quota_bytes: int
    protocols: tuple[Protocol, ...]
    state: MailboxState = MailboxState.ACTIVE
    credentials: tuple[Credential, ...] = ()


class Shard(msgspec.Struct, frozen=True):
    """The mailboxes whose address hashes to one of `SHARDS` (see `shard_of`)."""

    version: int
    mailboxes: tuple[MailboxConfig, ...]


class DomainConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One domain of the fleet and its rules for mail that comes in."""

    domain: str  # lower case, A-labels
    alias_domains: tuple[str, ...] = ()
    catch_all: str | None = None  # address of the mailbox that takes unknown recipients
    role_mailbox: str | None = None  # address of the mailbox that takes role_addresses; None: the domain's oldest mailbox
    role_addresses: tuple[str, ...] = ()  # local parts
    max_message_bytes: int = 50 * 1024 * 1024
    recipient_delimiter: str = "+"


class StorageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The bucket."""

    bucket: str
    endpoint: str | None = None  # None: AWS
    region: str = "us-east-1"
    prefix: str = ""
    force_path_style: bool = False
    server_side_encryption: str | None = None  # AES256, aws:kms, aws:kms:dsse
    kms_key_id: str | None = None
    retention_seconds: int = 14 * 86400
    cache_bytes: int = 1024**3


class ListenerConfig(msgspec.Struct, frozen=True):
    """One open port."""

    name: ListenerName
    port: int


class PodConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is not a mailbox or a secret."""

    version: int
    generation: str  # changes whenever anything in the directory changes; reported back by the pod
    hostname: str  # EHLO name, Received "by", certificate name
    domains: tuple[DomainConfig, ...]
    storage: StorageConfig
    listeners: tuple[ListenerConfig, ...]
    web_port: int = 8080  # health, metrics and pod-to-pod; never on a public Service
    peers: tuple[str, ...] = ()  # http://host:port of other pods, or one DNS name that resolves to all of them
    proxy_trusted_cidrs: tuple[str, ...] = ()
    tls_min_version: str = "TLSv1.2"
    log_level: str = "Info"


def shard_of(address: str) -> int:
    """The shard, 0…`SHARDS`-1, of a mailbox's address: CRC-32 of its UTF-8 form, so that both sides agree on any version."""
    return zlib.crc32(address.encode()) % SHARDS

"""The listeners' TLS: contexts from PEM files or of the pod's own making, reload by exchange, and channel-binding data.

A reload makes another context for connections to come; those that exist keep theirs, so that none is dropped.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailpod.limits import connection as limits
from mailpod.servers.exporter import tls_exporter
from mailpod.sessions.wire import TlsInfo

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
# TLS 1.2: forward secrecy and AEAD only (RFC 9325 §4.2). TLS 1.3's suites are all fine.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL"


class KeyPair(NamedTuple):
    """PEM: a chain, leaf first, and its private key."""

    chain: bytes
    key: bytes


class SelfMade(NamedTuple):
    """A certificate of the pod's own making and the authority to trust for it, PEM."""

    pair: KeyPair
    ca: bytes


class ServerContext(ssl.SSLContext):
    """A context that knows its certificate's channel binding."""

    channel_binding: tuple[str, bytes] | None = None


class TlsProvider:
    """The context in force. `context()` is asked for every new connection; `replace` changes what it answers."""

    def __init__(self, pair: KeyPair, min_version: str = "TLSv1.2") -> None:
        """Raises ValueError when certificate and key don't load or don't fit."""
        self._made_from = (pair, min_version)
        self._context = make_context(pair, min_version)

    def context(self) -> ServerContext:
        """The context for a connection that begins now."""
        return self._context

    def replace(self, pair: KeyPair, min_version: str = "TLSv1.2") -> bool:
        """Take another certificate or minimum version into force; False when nothing differs.

        Raises ValueError, and keeps the old one, when the new one is not usable.
        """
        if (pair, min_version) == self._made_from:
            return False
        self._context = make_context(pair, min_version)
        self._made_from = (pair, min_version)
        return True


def make_context(pair: KeyPair, min_version: str) -> ServerContext:
    """A server's context. Raises ValueError when certificate, key or version are not usable."""
    if min_version not in _VERSIONS:
        raise ValueError(f"TLS version {min_version!r} is none of {', '.join(_VERSIONS)}")
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[min_version]
    context.set_ciphers(_CIPHERS)
    context.num_tickets = limits.TLS_TICKETS
    # Renegotiation (TLS 1.2) lets a client make us work without limit; compression leaks (CRIME).
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_mode = ssl.CERT_NONE
    try:
        _load(context, pair)
        leaf = x509.load_pem_x509_certificates(pair.chain)[0]
    except (ssl.SSLError, ValueError, IndexError) as error:
        raise ValueError(f"TLS certificate or key is not usable: {error}") from None
    context.channel_binding = ("tls-server-end-point", end_point_hash(leaf))
    return context


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    # The ssl module loads from files only; an anonymous one in memory leaves no key on a disk.
    descriptor = os.memfd_create("tls") if hasattr(os, "memfd_create") else -1
    if descriptor >= 0:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pair.chain + b"\n" + pair.key)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600, removed at once
        file.write(pair.chain + b"\n" + pair.key)
        file.flush()
        context.load_cert_chain(file.name)


def end_point_hash(leaf: x509.Certificate) -> bytes:
    """RFC 5929 §4.1: the certificate's hash by its own signature's algorithm; MD5 and SHA-1, or none (EdDSA), count as SHA-256."""
    algorithm = leaf.signature_hash_algorithm
    name = algorithm.name if algorithm is not None else "sha256"
    if name not in ("sha224", "sha256", "sha384", "sha512"):
        name = "sha256"
    return hashlib.new(name, leaf.public_bytes(serialization.Encoding.DER)).digest()


def tls_info(connection: ssl.SSLObject | ssl.SSLSocket) -> TlsInfo:
    """What a session may know of its TLS layer. The certificate's binding is that of the context which the connection was made with.

    Bindings are given where clients' own kind is among them: tls-exporter on TLS 1.3 (RFC 9266 §3; tls-server-end-point beside it). On
    TLS 1.2 clients use tls-unique, which is safe only with a property that the ssl module does not tell (RFC 7677 §4): none there.
    """
    context = connection.context
    cipher = connection.cipher()
    exported = tls_exporter(connection)
    binding: tuple[str, bytes] | None = None
    others: tuple[tuple[str, bytes], ...] = ()
    if exported is not None:
        binding = exporter = ("tls-exporter", exported)
        if isinstance(context, ServerContext) and context.channel_binding is not None:
            binding, others = context.channel_binding, (exporter,)
    return TlsInfo(connection.version() or "", cipher[0] if cipher else "", binding, others)


def self_made(hostnames: Sequence[str], now: float) -> SelfMade:
    """A fresh authority and a certificate by it for `hostnames` (names or IP addresses). `now`: seconds since 1970-01-01 UTC."""
    start = dt.datetime.fromtimestamp(now, dt.UTC) - dt.timedelta(hours=1)  # other machines' clocks lag
    end = start + dt.timedelta(days=limits.SELF_SIGNED_DAYS)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Postroom self-made authority")])
    ca = (
        x509.CertificateBuilder()
        .subject_name(ca_name)
        .issuer_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostnames[0][:64])]))  # X.520: 64 characters
        .issuer_name(ca_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in hostnames]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return SelfMade(KeyPair(leaf.public_bytes(pem) + ca.public_bytes(pem), private), ca.public_bytes(pem))


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

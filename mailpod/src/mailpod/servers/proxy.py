"""PROXY protocol v1 and v2 (haproxy's proxy-protocol.txt): a sans-IO parser, and the rule whose headers are believed.

A peer in `TrustedPeers` must send a header and nobody else's is looked at: guessing by content would let a client choose its address
(proxy-protocol.txt §2: "the receiver … must not try to guess whether the protocol header is present or not").
"""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from mailpod.sessions.wire import Peer

V1_BYTES_MAX: Final = 107  # proxy-protocol.txt §2.1: the longest line, CRLF included
V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_FIXED_BYTES: Final = 16  # signature, version and command, family, length
V2_BYTES_MAX: Final = 4096  # addresses and TLVs (ALPN, SSL, namespace …) of any real balancer are far smaller; the field allows 64 KiB
HEADER_TIMEOUT_S: Final = 5.0  # a balancer sends it together with the handshake's last packet

_V1_START: Final = b"PROXY "


class ProxyHeader(NamedTuple):
    """A complete header. `peer` is None where it names none (LOCAL, UNKNOWN, AF_UNIX): the real peer stands, e.g. for health checks."""

    peer: Peer | None
    consumed: int  # bytes of the buffer that belong to the header


class NeedMore(NamedTuple):
    """Every byte so far belongs to a header that is not complete."""

    at_least: int  # further bytes that it takes


class BadHeader(NamedTuple):
    """Not a header, or a malformed one: the connection is to be closed without an answer."""

    why: str


def parse(buffer: bytes) -> ProxyHeader | NeedMore | BadHeader:
    """Parse a header at the start of `buffer`. Pure; call it again with more bytes after `NeedMore`."""
    if V2_SIGNATURE.startswith(buffer[: len(V2_SIGNATURE)]) and len(buffer) < len(V2_SIGNATURE):
        return NeedMore(V2_FIXED_BYTES - len(buffer)) if buffer else NeedMore(1)
    if buffer.startswith(V2_SIGNATURE):
        return _parse_v2(buffer)
    if buffer.startswith(_V1_START) or _V1_START.startswith(buffer):
        return _parse_v1(buffer)
    return BadHeader("no PROXY header")


def _parse_v1(buffer: bytes) -> ProxyHeader | NeedMore | BadHeader:
    # §2.1: "PROXY" SP "TCP4"/"TCP6"/"UNKNOWN" SP source SP destination SP source port SP destination port CRLF
    end = buffer.find(b"\r\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(buffer) >= V1_BYTES_MAX or b"\n" in buffer or b"\x00" in buffer:
            return BadHeader("v1 line too long or broken")
        return NeedMore(1)
    try:
        words = buffer[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        return BadHeader("v1 line is not ASCII")
    if words[1:2] == ["UNKNOWN"]:  # the rest of the line must be ignored
        return ProxyHeader(None, end + 2)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        return BadHeader("v1 line has the wrong form")
    try:
        addresses = [ipaddress.ip_address(word) for word in words[2:4]]
    except ValueError:
        return BadHeader("v1 address does not parse")
    if any(address.version != int(words[1][3]) for address in addresses) or "%" in words[2]:
        return BadHeader("v1 address is of another family")
    if not all(_is_port(word) for word in words[4:]):
        return BadHeader("v1 port does not parse")
    return ProxyHeader(Peer(canonical(str(addresses[0])), int(words[4])), end + 2)


def _is_port(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 5 and (word == "0" or word[0] != "0") and int(word) <= 65535


def _parse_v2(buffer: bytes) -> ProxyHeader | NeedMore | BadHeader:
    if len(buffer) < V2_FIXED_BYTES:
        return NeedMore(V2_FIXED_BYTES - len(buffer))
    version_command, family, length = struct.unpack_from("!BBH", buffer, len(V2_SIGNATURE))
    total = V2_FIXED_BYTES + length
    if version_command >> 4 != 2 or version_command & 0xF > 1:
        return BadHeader("v2 version or command unknown")
    if total > V2_BYTES_MAX:
        return BadHeader("v2 header too long")
    if len(buffer) < total:
        return NeedMore(total - len(buffer))
    if version_command & 0xF == 0:  # §2.2 LOCAL: the balancer's own connection; addresses must be ignored
        return ProxyHeader(None, total)
    if family == 0x11:  # TCP over IPv4
        return _v2_peer(buffer, total, 4)
    if family == 0x21:  # TCP over IPv6
        return _v2_peer(buffer, total, 16)
    if family in (0x00, 0x31):  # AF_UNSPEC, UNIX stream: no address that could be used
        return ProxyHeader(None, total)
    return BadHeader("v2 family unknown")


def _v2_peer(buffer: bytes, total: int, size: int) -> ProxyHeader | BadHeader:
    if total < V2_FIXED_BYTES + 2 * size + 4:
        return BadHeader("v2 addresses cut short")
    source = ipaddress.ip_address(buffer[V2_FIXED_BYTES : V2_FIXED_BYTES + size])
    (port,) = struct.unpack_from("!H", buffer, V2_FIXED_BYTES + 2 * size)
    return ProxyHeader(Peer(canonical(str(source)), port), total)


def canonical(address: str) -> str:
    """An IP address as limits and logs know it: no zone, IPv4-mapped IPv6 as IPv4, so that one client has one name."""
    address = address.partition("%")[0]
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


class TrustedPeers:
    """The networks whose PROXY headers are believed, and required."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        """Raises ValueError for what is no network."""
        self._networks = tuple(ipaddress.ip_network(cidr, strict=False) for cidr in cidrs)

    def __contains__(self, address: str) -> bool:
        if not self._networks:
            return False
        parsed = ipaddress.ip_address(canonical(address))
        return any(parsed in network for network in self._networks)


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """The transport's own peer; ("", 0) when it is gone already."""
    name = transport.get_extra_info("peername")
    return Peer(canonical(name[0]), name[1]) if isinstance(name, tuple) else Peer("", 0)

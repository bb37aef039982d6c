"""PROXY protocol headers: what is taken, what is refused, and never a byte beyond them."""

import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailpod.servers.proxy import V2_SIGNATURE, BadHeader, NeedMore, ProxyHeader, TrustedPeers, canonical, parse
from mailpod.sessions.wire import Peer


def v2(command=0x21, family=0x11, body=b"") -> Any:
    return V2_SIGNATURE + bytes([command, family]) + struct.pack("!H", len(body)) + body


V4 = bytes([203, 0, 113, 7, 192, 0, 2, 1]) + struct.pack("!HH", 4711, 25)
V6 = bytes.fromhex("20010db8000000000000000000000007" + "20010db8000000000000000000000001") + struct.pack("!HH", 4711, 25)
MAPPED = bytes.fromhex("00000000000000000000ffffcb007107") + bytes(16) + struct.pack("!HH", 4711, 25)

GOOD = [
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25\r\n", Peer("203.0.113.7", 4711)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", Peer("2001:db8::7", 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", None),
    (v2(body=V4), Peer("203.0.113.7", 4711)),
    (v2(body=V4 + b"\x04\x00\x02ab"), Peer("203.0.113.7", 4711)),
    (v2(family=0x21, body=V6), Peer("2001:db8::7", 4711)),
    (v2(family=0x21, body=MAPPED), Peer("203.0.113.7", 4711)),
    (v2(command=0x20, body=V4), None),
    (v2(family=0x00), None),
    (v2(family=0x31, body=bytes(216)), None),
]
BAD = [
    b"EHLO client.example\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25 x\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 65536\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 047 25\r\n",
    b"PROXY TCP4 203.0.113.7  192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 2001:db8::7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP6 203.0.113.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 4711 25\r\n",
    b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 25\n",
    b"PROXY TCP4 \xff 192.0.2.1 4711 25\r\n",
    b"PROXY " + b"x" * 120,
    v2(command=0x11, body=V4),
    v2(command=0x22, body=V4),
    v2(family=0x12, body=V4),
    v2(body=V4[:11]),
    v2(body=bytes(5000)),
]


@pytest.mark.parametrize(("header", "peer"), GOOD)
def test_good_headers(header, peer):
    """Whole, cut at every byte, and with the client's first bytes behind: the same peer, and the same end."""
    for end in range(1, len(header)):
        assert isinstance(parse(header[:end]), NeedMore), end
    assert parse(header) == ProxyHeader(peer, len(header))
    assert parse(header + b"EHLO x\r\n") == ProxyHeader(peer, len(header))


@pytest.mark.parametrize("header", BAD)
def test_bad_headers(header):
    """A malformed header names no peer: the connection is closed rather than taken for the balancer's own."""
    assert isinstance(parse(header), BadHeader)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=120),
        st.binary(max_size=60).map(lambda tail: V2_SIGNATURE + tail),
        st.binary(max_size=80).map(lambda tail: b"PROXY " + tail),
    )
)
@example(b"")
def test_parser_never_raises_and_never_overreads(data):
    """Fuzz: any bytes give one of the three answers, within what there is."""
    result = parse(data)
    if isinstance(result, ProxyHeader):
        assert 0 < result.consumed <= len(data)
    elif isinstance(result, NeedMore):
        assert result.at_least > 0


def test_trusted_peers():
    """Only the networks that are named, in either notation of an IPv4 address."""
    trusted = TrustedPeers(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])
    assert "10.1.2.3" in trusted
    assert "::ffff:10.1.2.3" in trusted
    assert "2001:db8::1" in trusted
    assert "192.0.2.7" in trusted
    assert "192.0.2.8" not in trusted
    assert "11.0.0.1" not in trusted
    assert "2001:db9::1" not in trusted
    with pytest.raises(ValueError, match="not"):
        TrustedPeers(["10.0.0.0/33", "nonsense"])


def test_canonical_addresses():
    """One client has one name, or its limits could be had twice."""
    assert canonical("::ffff:192.0.2.1") == "192.0.2.1"
    assert canonical("fe80::1%eth0") == "fe80::1"
    assert canonical("2001:0db8::0001") == "2001:db8::1"

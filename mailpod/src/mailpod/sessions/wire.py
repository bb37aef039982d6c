"""What a session sees of its connection, and what a connection sees of its session (IMAP, POP3). No sockets here."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

from mailpod.errors import Reason


class TlsInfo(NamedTuple):
    """The TLS layer in force."""

    version: str  # "TLSv1.3"
    cipher: str
    channel_binding: tuple[str, bytes] | None  # type and data, for SCRAM-…-PLUS; None: -PLUS is not offered
    other_bindings: tuple[tuple[str, bytes], ...] = ()  # what a client may bind to instead (RFC 9266, RFC 5929)


class Peer(NamedTuple):
    """The client, after PROXY protocol has been taken into account."""

    address: str  # IP address without a zone
    port: int


class Wire(Protocol):
    """The connection's half. Owned by one session; all calls on the event loop."""

    protocol: str  # telemetry label: "imap", "imaps", "pop3", "pop3s"
    session_id: str  # for logs
    peer: Peer
    tls: TlsInfo | None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; all writes of one loop turn leave as one."""

    def writelines(self, chunks: Sequence[bytes]) -> None:
        """Queue several at once."""

    @property
    def congested(self) -> bool:
        """The peer reads slower than we write: await `drained()` before producing more."""

    def drained(self) -> Awaitable[None]:
        """Ready when not congested; raises ConnectionResetError when the connection is gone."""

    def pause_reading(self) -> None:
        """Stop `data_received` until `resume_reading`; what the client sends meanwhile waits in the kernel."""

    def resume_reading(self) -> None:
        """Go on reading."""

    async def start_tls(self) -> TlsInfo:
        """Flush, discard whatever the client sent in plaintext behind the command (RFC 3207 §4.2's rule), negotiate."""

    def start_compression(self) -> None:
        """RFC 4978: raw DEFLATE both ways from here on; output of inflating is capped by limits."""

    def close(self) -> None:
        """Flush and close."""


class Session(Protocol):
    """The session's half. No task exists while it idles: one only while a command runs."""

    idle_timeout_s: float  # read by the connection's coarse sweep: seconds without a byte from the client

    def begin(self) -> None:
        """The connection is ready (TLS done where implicit): greet."""

    def data_received(self, data: bytes) -> None:
        """Decrypted, decompressed bytes from the client."""

    def eof_received(self) -> None:
        """The client closed its half: answer what came before, then close."""

    def timed_out(self) -> None:
        """The sweep found the session idle for longer than `idle_timeout_s`: say so in the protocol's terms and close."""

    @property
    def account_address(self) -> str:
        """The account that is logged in; "" before login."""

    def close_for(self, reason: Reason) -> None:
        """End as soon as no command runs, and tell the client why."""

    def shut_down(self) -> None:
        """The pod drains: say BYE as soon as no command runs, then close."""

    def connection_lost(self) -> None:
        """Cancel what runs, let go of views and callbacks."""

"""A small blocking IMAP client for the bench: exact timing, nothing parsed that is not needed."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Self

# One for all: making one costs more than a handshake. Nothing is resumed, for no session is passed on.
_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname = False
_CONTEXT.verify_mode = ssl.CERT_NONE


class Imap:
    """One connection. `command()` sends and reads to the tagged line; `seconds` and `received` tell of the last command."""

    def __init__(self, port: int, *, tls: bool = True) -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self._socket = _CONTEXT.wrap_socket(self._socket)
        self._tag = 0
        self._view = memoryview(bytearray(1 << 20))
        self.received = 0
        self.seconds = 0.0
        self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _line(self) -> bytes:
        data = b""
        while not data.endswith(b"\r\n"):
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionError("closed")
            data += more
        return data

    def command(self, text: str, *, keep: bool = False) -> bytes:
        """Send one command. Returns its tagged line; with `keep`, everything that came. Raises RuntimeError unless it is OK."""
        self._tag += 1
        tag = f"a{self._tag}".encode()
        end = b"\r\n" + tag + b" "
        kept: list[bytes] = []
        tail = b"\r\n"
        self.received = 0
        started = time.perf_counter()
        self._socket.sendall(tag + b" " + text.encode() + b"\r\n")
        while True:
            size = self._socket.recv_into(self._view)
            if size == 0:
                raise ConnectionError("closed")
            self.received += size
            if keep:
                kept.append(bytes(self._view[:size]))
            # The tagged line is at the end: only the last bytes have to be looked at.
            tail = (tail + bytes(self._view[max(0, size - 512) : size]))[-1024:]
            if tail.endswith(b"\r\n"):
                at = tail.rfind(end)
                if at >= 0 and tail.find(b"\r\n", at + 2) == len(tail) - 2:
                    break
        self.seconds = time.perf_counter() - started
        line = tail[at + 2 :]
        if not line.startswith(tag + b" OK"):
            raise RuntimeError(f"{text[:80]}: {line.decode(errors='replace')}")
        return b"".join(kept) if keep else line

    def login(self, user: str, password: str) -> None:
        """LOGIN."""
        self.command(f'LOGIN "{user}" "{password}"')

    def append(self, folder: str, parts: list[bytes]) -> None:
        """MULTIAPPEND (RFC 3502); each part is ` {n+}` CRLF and the message."""
        self._tag += 1
        tag = f"a{self._tag}".encode()
        self._socket.sendall(tag + b" APPEND " + folder.encode() + b"".join(parts) + b"\r\n")
        answer = b""
        while not ((answer.endswith(b"\r\n") and answer.startswith(tag)) or b"\r\n" + tag in answer):
            answer += self._line()
        if tag + b" OK" not in answer:
            raise RuntimeError(answer.decode(errors="replace"))

    def send(self, data: bytes) -> None:
        """Raw bytes, for IDLE."""
        self._socket.sendall(data)

    def fileno(self) -> int:
        """For select()."""
        return self._socket.fileno()

    def read(self) -> bytes:
        """What is there."""
        return self._socket.recv(65536)

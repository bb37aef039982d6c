"""Conversations between mail programs and our server as text files: cleaning what was recorded, and playing the client's side again.

A file has, for each connection of the program in turn, a line `@ <listener>` and then what was said inside TLS: `C: ` lines by the
program, `S: ` lines by the server. Names in angle brackets stand for what differs each time: `<password>`, `<base64 …>` (the text in it is
encoded), the SCRAM messages, dates and queue ids. `\\xNN` is a byte that is no text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import socket
import ssl
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailpod.contract import ListenerName
from tests.support.pods import PASSWORD

IMPLICIT = frozenset({ListenerName.SUBMISSIONS, ListenerName.IMAPS, ListenerName.POP3S})
_START_TLS = re.compile(r"(\S+ )?(STARTTLS|STLS)", re.IGNORECASE)
_COMPRESS = re.compile(r"\S+ COMPRESS DEFLATE", re.IGNORECASE)
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=<])[A-Za-z0-9+/]{16,}={0,2}(?![A-Za-z0-9+/=])")
_TIMEOUT_S = 15.0

_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_VARIES = (
    (re.compile(r"\b1[7-9]\d{8}\b"), "<uidvalidity>"),  # a time, at first
    (re.compile(r"MODSEQ \(?\d+\)?"), "MODSEQ <modseq>"),  # several changes may be one commit
    (re.compile(rf'"[ \d]\d-{_MONTH}-\d{{4}} \d\d:\d\d:\d\d [-+]\d{{4}}"'), '"<date>"'),  # INTERNALDATE, SAVEDATE
    (re.compile(r"^(250 2\.0\.0 Ok:) .*"), r"\1 <queue id>"),
    (re.compile(r"<[0-9A-Za-z.]+@mail\.example\.com>$"), "<<stamp>>"),
)


@dataclass
class Connection:
    """One connection: what was said, in turns of whole lines without their CRLF."""

    listener: ListenerName
    turns: list[tuple[str, list[str]]] = field(default_factory=list)  # "C" or "S"

    def add(self, side: str, line: str) -> None:
        """One more line."""
        if not self.turns or self.turns[-1][0] != side:
            self.turns.append((side, []))
        self.turns[-1][1].append(line)

    def said_by(self, side: str) -> list[str]:
        """All lines of one side."""
        return [line for who, lines in self.turns if who == side for line in lines]


def text_of(data: bytes) -> str:
    """A line as it stands in the file."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def bytes_of(text: str) -> bytes:
    """The line that the file means."""
    raw = text.encode()
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes((int(match[1], 16),)), raw)


def load(path: Path) -> list[Connection]:
    """Read a file."""
    connections: list[Connection] = []
    for line in path.read_text().splitlines():
        if line.startswith("@ "):
            connections.append(Connection(ListenerName(line[2:])))
        elif line.startswith(("C: ", "S: ")):
            connections[-1].add(line[0], line[3:])
    return connections


def dump(connections: Iterable[Connection], comment: str) -> str:
    """What `load` reads."""
    out = [f"# {comment}"]
    for connection in connections:
        out.append(f"@ {connection.listener.value}")
        out += [f"{side}: {line}" for side, lines in connection.turns for line in lines]
    return "\n".join(out) + "\n"


# ---- cleaning ---------------------------------------------------------------------------------------------------------------------


def clean(line: str, side: str, names: Mapping[str, str]) -> str:
    """A recorded line without secrets and without what differs each time. `names` are replaced as they are (this host's name, …)."""
    line = _BASE64.sub(lambda match: _clean_base64(match[0]), line)
    line = line.replace(PASSWORD, "<password>")
    for name, stand_in in names.items():
        line = line.replace(name, stand_in)
    return vary(line) if side == "S" else line


def _clean_base64(word: str) -> str:
    try:
        text = base64.b64decode(word, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return word
    if PASSWORD in text:
        return "<base64 " + text.replace("\0", "\\0").replace(PASSWORD, "[password]") + ">"
    for pattern, name in (
        (r"[ny],(?:a=[^,]*)?,n=.*,r=", "first"),
        (r"r=.*,s=.*,i=", "challenge"),
        (r"c=.*,r=.*,p=", "final"),
        (r"v=", "verifier"),
    ):
        if re.match(pattern, text):
            return f"<scram {name}>"
    return word


def vary(line: str) -> str:
    """A server's line, with stand-ins for what differs each time."""
    for pattern, stand_in in _VARIES:
        line = pattern.sub(stand_in, line)
    return line


def same(expected: str, got: str) -> bool:
    """Whether two cleaned lines of the server mean the same: capabilities may have been added since."""
    if "CAPABILITY " in expected and "CAPABILITY " in got:
        return set(_words(expected)) <= set(_words(got))
    return expected == got


def _words(line: str) -> list[str]:
    return line.replace("[", " ").replace("]", " ").split()


# ---- playing ----------------------------------------------------------------------------------------------------------------------


class _Scram:
    """The client's side of SCRAM-SHA-256 (RFC 7677), without channel binding."""

    def __init__(self, user: str) -> None:
        self._bare = f"n={user},r=rOprNGfwEbeRWgbNEkqO"
        self._signature = b""

    def first(self) -> bytes:
        """The first message."""
        return b"n,," + self._bare.encode()

    def final(self, challenge: bytes) -> bytes:
        """The answer to the server's challenge."""
        text = challenge.decode()
        nonce, salt, count = (part[2:] for part in text.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(salt), int(count))
        client = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={nonce}"
        message = f"{self._bare},{text},{without_proof}".encode()
        proof = bytes(a ^ b for a, b in zip(client, hmac.digest(hashlib.sha256(client).digest(), message, "sha256"), strict=True))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, verifier: bytes) -> None:
        """The server has to know the password too."""
        assert verifier == b"v=" + base64.b64encode(self._signature), "the server does not know the password"


class Replay:
    """One connection, played against a running server."""

    def __init__(self, recorded: Connection, port: int, context: ssl.SSLContext, user: str) -> None:
        self._recorded = recorded
        self._context = context
        self._user = user
        self._scram = _Scram(user)
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT_S)
        if recorded.listener in IMPLICIT:
            self._secure()
        self._buffer = b""
        self._deflate: Any = None  # of COMPRESS (RFC 4978)
        self._inflate: Any = None
        self.got: list[str] = []
        self._raw: list[bytes] = []

    def _secure(self) -> None:
        self._socket = self._context.wrap_socket(self._socket, server_hostname="localhost")

    def run(self) -> list[str]:
        """Say all that the program said, each turn after the server has said as much as it had then; what the server said."""
        wanted = 0
        upgrade = compress = False
        for side, lines in self._recorded.turns:
            if side == "S":
                wanted += len(lines)
                self._read(wanted)
                if upgrade:
                    self._secure()
                    upgrade = False
                if compress:
                    self._deflate, self._inflate = zlib.compressobj(wbits=-zlib.MAX_WBITS), zlib.decompressobj(-zlib.MAX_WBITS)
                    compress = False
                continue
            self._send(b"".join(self._fill(line) + b"\r\n" for line in lines))
            compress = _COMPRESS.fullmatch(lines[-1]) is not None
            upgrade = _START_TLS.fullmatch(lines[-1]) is not None
        self._socket.close()
        return self.got

    def _send(self, data: bytes) -> None:
        if self._deflate is not None:
            data = self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._socket.sendall(data)

    def _read(self, wanted: int) -> None:
        while len(self.got) < wanted:
            line, end, rest = self._buffer.partition(b"\r\n")
            if end:
                self._buffer = rest
                self._raw.append(line)
                self.got.append(clean(text_of(line), "S", {}))
                continue
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                expected = self._recorded.said_by("S")[len(self.got)]
                raise AssertionError(f"no answer where there was {expected!r}; before it: {self.got[-3:]}")
            self._buffer += data if self._inflate is None else self._inflate.decompress(data)

    def _fill(self, line: str) -> bytes:
        """A line with the secrets that belong there."""
        line = line.replace("<password>", PASSWORD)
        match = re.search(r"<base64 (.*)>", line)
        if match:
            plain = match[1].replace("\\0", "\0").replace("[password]", PASSWORD).encode()
            return line.replace(match[0], base64.b64encode(plain).decode()).encode()
        if "<scram first>" in line:
            return line.replace("<scram first>", base64.b64encode(self._scram.first()).decode()).encode()
        if "<scram final>" in line:
            challenge = base64.b64decode(self._raw[-1].split()[-1])
            return line.replace("<scram final>", base64.b64encode(self._scram.final(challenge)).decode()).encode()
        return bytes_of(line)

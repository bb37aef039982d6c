"""Records what real mail programs say: `python -m tests.support.recorder DIRECTORY [PROGRAM …]`.

Starts an S3 server and a pod, puts a proxy that ends TLS before the pod, lets each program of `client_programs` do its round with a
mailbox of its own, and writes the cleaned conversations as files that `tests/integration/test_transcripts.py` plays again.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mailpod.adapters.objects import Credentials
from mailpod.contract import ListenerName, StorageConfig
from tests.support import transcripts
from tests.support.client_programs import PROGRAMS, names_of_this_host, prepare, start_fleet
from tests.support.pods import Fleet
from tests.support.seaweed import Seaweed
from tests.support.transcripts import Connection, clean, text_of

_START_TLS = re.compile(rb"(?:\S+ )?(?:STARTTLS|STLS)\r\n", re.IGNORECASE)
_COMPRESS = re.compile(rb"(\S+) COMPRESS DEFLATE", re.IGNORECASE)
_ACCEPTED = re.compile(rb"(?:220|\+OK|\S+ OK)[ \r]")


class Recorder:
    """A proxy for each listener of a pod. It ends the client's TLS and begins its own with the pod."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.ports: dict[ListenerName, int] = {}
        self._listening: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pod = fleet.pods[0]
        self._server.load_cert_chain(pod.config_dir / "tls.crt", pod.config_dir / "tls.key")
        self._events: list[tuple[ListenerName, list[tuple[str, bytes]]]] = []
        for name in pod.ports:
            listening = socket.create_server(("127.0.0.1", 0))
            self.ports[name] = listening.getsockname()[1]
            self._listening.append(listening)
            threading.Thread(target=self._accept, args=(name, listening), daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        for listening in self._listening:
            listening.close()

    def take(self, names: dict[str, str]) -> list[Connection]:
        """The connections since the last call, cleaned."""
        for thread in self._threads:
            thread.join(10)
        events, self._events = self._events, []
        return [_connection(name, chunks, names) for name, chunks in events]

    def _accept(self, name: ListenerName, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                chunks: list[tuple[str, bytes]] = []
                self._events.append((name, chunks))
                thread = threading.Thread(target=self._guard, args=(name, client, chunks), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _guard(self, name: ListenerName, client: socket.socket, chunks: list[tuple[str, bytes]]) -> None:
        with contextlib.suppress(OSError):
            self._relay(name, client, chunks)

    def _relay(self, name: ListenerName, client: socket.socket, chunks: list[tuple[str, bytes]]) -> None:
        server: socket.socket = socket.create_connection(("127.0.0.1", self._fleet.pods[0].ports[name]))
        if name in transcripts.IMPLICIT:
            client, server = self._secure(client, server)
        upgrade = False
        try:
            while True:
                for source in _readable(client, server):
                    data = source.recv(65536)
                    if not data:
                        return
                    from_client = source is client
                    chunks.append(("C" if from_client else "S", data))
                    (server if from_client else client).sendall(data)
                    if from_client:
                        upgrade = _START_TLS.fullmatch(data) is not None
                    elif upgrade and _ACCEPTED.match(data):
                        upgrade = False
                        client, server = self._secure(client, server)
                        break
        finally:
            client.close()
            server.close()

    def _secure(self, client: socket.socket, server: socket.socket) -> tuple[socket.socket, socket.socket]:
        context = self._fleet.tls_context()
        return self._server.wrap_socket(client, server_side=True), context.wrap_socket(server, server_hostname="localhost")


def _readable(*sockets: socket.socket) -> Iterator[socket.socket]:
    pending = [one for one in sockets if isinstance(one, ssl.SSLSocket) and one.pending()]
    yield from pending or select.select(sockets, [], [])[0]


def _connection(name: ListenerName, chunks: list[tuple[str, bytes]], names: dict[str, str]) -> Connection:
    """Whole lines in turns; a line that came in pieces stands where it ended. COMPRESS (RFC 4978) is undone."""
    connection = Connection(name)
    rest = {"C": b"", "S": b""}
    inflaters: dict[str, Any] = {}
    compressing = b""  # the tag of the command
    for side, data in chunks:
        if inflaters:
            data = inflaters[side].decompress(data)
        *lines, rest[side] = (rest[side] + data).split(b"\r\n")
        for line in lines:
            connection.add(side, clean(text_of(line), side, names))
            if side == "C" and (match := _COMPRESS.fullmatch(line)):
                compressing = match[1]
            elif side == "S" and compressing and line.startswith(compressing + b" OK"):
                inflaters = {one: zlib.decompressobj(-zlib.MAX_WBITS) for one in "CS"}
                compressing = b""
    for side, data in rest.items():
        assert not data, f"a last line without its end: {side} {data!r}"
    return connection


def main() -> None:
    """See the module."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    chosen = sys.argv[2:] or list(PROGRAMS)
    with tempfile.TemporaryDirectory() as base:
        seaweed = Seaweed.start(Path(base) / "seaweed")
        fleet = None
        try:
            seaweed.make_bucket("mail")
            storage = StorageConfig(bucket="mail", endpoint=seaweed.endpoint, force_path_style=True)
            fleet = start_fleet(Path(base) / "fleet", storage, Credentials(seaweed.access_key, seaweed.secret_key))
            recorder = Recorder(fleet)
            for name in chosen:
                program = PROGRAMS[name]
                home = Path(base) / name
                home.mkdir()
                prepare(fleet, name)
                version = program(recorder.ports, fleet.ca_file, home, f"{name}@example.com")
                found = recorder.take(names_of_this_host())
                (directory / f"{name}.txt").write_text(transcripts.dump(found, f"{name}: {version}"))
                print(f"{name}: {len(found)} connections, {sum(len(one.said_by('C')) for one in found)} lines")
            recorder.close()
        finally:
            if fleet is not None:
                fleet.stop()
            seaweed.stop()


if __name__ == "__main__":
    main()

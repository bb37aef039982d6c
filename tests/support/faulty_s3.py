"""A proxy in front of a real S3 server that injects faults on purpose, on a port of its own: errors, delays, lost replies, late writes.

Requests are passed on as they are (the signature covers the Host header, so it is kept). Faults are drawn from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit


@dataclass
class Faults:
    """Probabilities in [0, 1], for each request anew; all zero: a plain proxy."""

    error: float = 0.0  # answered 500 or 503, not passed on
    silence: float = 0.0  # never answered, not passed on
    lost_reply: float = 0.0  # passed on, then the connection is cut before the answer
    late_write: float = 0.0  # a PUT: the connection is cut, and the write happens `late_s` later
    late_s: float = 2.0
    delay_s: float = 0.0  # before each request
    cut: bool = False  # nothing gets through: connections are cut at once
    only_writes: bool = False  # faults strike PUT only


@dataclass
class FaultyS3:
    """The running proxy. Set `faults` at any time; `counts` tells what has been injected."""

    upstream: str
    seed: int
    faults: Faults = field(default_factory=Faults)
    counts: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1, in a thread with an event loop of its own."""
        self._random = random.Random(self.seed)
        self._late: set[asyncio.Future[None]] = set()
        target = urlsplit(self.upstream)
        self._host, self._port = target.hostname or "127.0.0.1", target.port or 80
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        def main() -> None:
            asyncio.set_event_loop(self._loop)
            server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            self._loop.run_forever()
            server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.05))
            self._loop.close()

        self._thread = threading.Thread(target=main, name="faulty-s3", daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    @property
    def endpoint(self) -> str:
        """What the pods are given instead of the real server."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End the proxy."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, TimeoutError):
            while await self._exchange(reader, writer):
                pass
        with contextlib.suppress(ConnectionError, RuntimeError):
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        method = head.split(b" ", 1)[0].decode()
        body = await reader.readexactly(_content_length(head))
        faults = self.faults
        if faults.cut:
            self.counts["cut"] += 1
            return False
        if faults.delay_s:
            self.counts["delay"] += 1
            await asyncio.sleep(faults.delay_s * (0.5 + self._random.random()))
        strikes = method == "PUT" or not faults.only_writes
        if strikes and self._random.random() < faults.error:
            self.counts["error"] += 1
            status = self._random.choice((b"500 Internal Server Error", b"503 Slow Down"))
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()
            return True
        if strikes and self._random.random() < faults.silence:
            self.counts["silence"] += 1
            await asyncio.sleep(600)
            return False
        if strikes and method == "PUT" and self._random.random() < faults.late_write:
            self.counts["late_write"] += 1
            late = faults.late_s

            async def write_late() -> None:
                await asyncio.sleep(late)
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await self._forward(head, body)

            task = asyncio.ensure_future(write_late())
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return False
        answer = await self._forward(head, body)
        if strikes and self._random.random() < faults.lost_reply:
            self.counts["lost_reply"] += 1
            return False
        self.counts["passed"] += 1
        writer.write(answer)
        await writer.drain()
        return True

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        """Pass a request on over a connection of its own; the whole answer."""
        # One request a connection: the server is asked to close, so the answer ends where the stream ends.
        lines = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))]
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(b"\r\n".join(lines) + b"\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        # The pod may keep its own connection to us.
        top, blank, rest = answer.partition(b"\r\n\r\n")
        kept = [line for line in top.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join(kept) + blank + rest


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":", 1)[1])
    return 0

"""An SMTP client for load: one connection a message, a fixed number of clients. Own process, so that its CPU is not the server's.

`python -m bench.smtp_load --port P --messages N --clients C --bytes B --rcpt a@example.com …` prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any

import uvloop


def build(size: int, number: int) -> bytes:
    """A plausible text message of about `size` bytes, dot-stuffed already, with a unique Message-ID."""
    head = (
        f"From: Alice Example <alice@example.org>\r\nTo: Bob Example <bob@example.com>\r\nSubject: bench message {number}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <bench-{number}-{time.time_ns()}@example.org>\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    ).encode()
    # Words that differ from line to line: neither all alike (zstd would cheat) nor noise (no mail is).
    lines = []
    length = len(head)
    word = number
    while length < size:
        word = (word * 1103515245 + 12345) % 2**31
        line = f"{word:08x} the quick brown fox {word % 9973} jumps over the lazy dog {word % 131}\r\n".encode()
        lines.append(line)
        length += len(line)
    return head + b"".join(lines)


class _Client(asyncio.Protocol):
    """Sends one message; resolves `done` with the final reply's code."""

    def __init__(self, rcpt: str, message: bytes, done: asyncio.Future[int]) -> None:
        self._done = done
        self._buffer = b""
        self._steps = [
            b"EHLO client.example.org\r\n",
            # One round trip for the envelope, as every sender with PIPELINING does.
            b"MAIL FROM:<alice@example.org>\r\nRCPT TO:<%s>\r\nDATA\r\n" % rcpt.encode(),
            message + b".\r\n",
            b"QUIT\r\n",
        ]
        self._expected = [1, 1, 3, 1]  # replies to wait for before each step
        self._replies = 0
        self._code = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\r\n")
        for line in lines:
            if line[3:4] == b"-":
                continue
            self._replies += 1
            code = int(line[:3])
            if code >= 400:
                self._finish(code)
                return
            if self._replies == self._expected[0]:
                self._replies = 0
                self._expected.pop(0)
                if len(self._steps) == 1:
                    self._code = code
                self._transport.write(self._steps.pop(0))
                if not self._steps:
                    self._finish(self._code)
                    return

    def _finish(self, code: int) -> None:
        if not self._done.done():
            self._done.set_result(code)
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(0)


async def run(port: int, messages: int, clients: int, size: int, recipients: list[str]) -> dict[str, float]:
    """Send; returns counts and seconds."""
    loop = asyncio.get_running_loop()
    bodies = [build(size, number) for number in range(64)]
    marker = b"Message-ID: <bench-"
    numbers = iter(range(messages))
    accepted = 0
    codes: dict[int, int] = {}

    async def client() -> None:
        nonlocal accepted
        for number in numbers:
            message = bodies[number % len(bodies)].replace(marker, b"Message-ID: <b%d-" % number, 1)
            done: asyncio.Future[int] = loop.create_future()
            rcpt = recipients[number % len(recipients)]
            await loop.create_connection(lambda: _Client(rcpt, message, done), "127.0.0.1", port)  # noqa: B023 - awaited at once
            code = await done
            codes[code] = codes.get(code, 0) + 1
            accepted += code == 250

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return {"accepted": accepted, "seconds": time.perf_counter() - started, "codes": codes}  # type: ignore[dict-item] # JSON only


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--rcpt", nargs="+", required=True)
    options = parser.parse_args()
    print(json.dumps(uvloop.run(run(options.port, options.messages, options.clients, options.bytes, options.rcpt))))


if __name__ == "__main__":
    main()

"""Open ports: by listener name, closed together."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable

import structlog

from mailpod.contract import ListenerName
from mailpod.limits import connection as limits

log = structlog.get_logger(__name__)


class Listeners:
    """The pod's listening sockets. What is accepted lives on when they are closed."""

    def __init__(self) -> None:
        self._servers: dict[ListenerName, asyncio.Server] = {}
        self.ports: dict[ListenerName, int] = {}  # as bound: for port 0 the one that the kernel chose

    async def open(self, name: ListenerName, port: int, factory: Callable[[], asyncio.BaseProtocol], host: str | None = None) -> int:
        """Listen on `host` (None: all addresses, IPv4 and IPv6); returns the port. Raises OSError when it is taken or not allowed."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, host, port, backlog=limits.LISTEN_BACKLOG, reuse_address=True)
        self._servers[name] = server
        self.ports[name] = bound = int(server.sockets[0].getsockname()[1])
        log.info("listening", listener=name.value, host=host or "*", port=bound)
        return bound

    def stop_accepting(self) -> None:
        """Close the listening sockets: new clients go to other pods."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    async def close_one(self, name: ListenerName) -> None:
        """Close one, after the configuration dropped it."""
        server = self._servers.pop(name, None)
        self.ports.pop(name, None)
        if server is not None:
            server.close()


def raise_file_limit() -> int:
    """Allow as many open files as connections may need, within what the system permits; returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.CONNECTIONS_MAX + limits.OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
            soft = new
    if soft != resource.RLIM_INFINITY and soft < wanted:
        log.warning("few-open-files", limit=soft, wanted=wanted)
    return soft

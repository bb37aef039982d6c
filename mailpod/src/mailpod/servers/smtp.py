"""SMTP listeners: opening and closing ports, draining; what the connections of a pod share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from aiosmtpd.smtp import SMTP

from mailpod.contract import ListenerConfig, ListenerName
from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.servers.proxy import TrustedPeers
from mailpod.servers.registry import Metrics
from mailpod.servers.smtp_connection import SmtpConnection
from mailpod.servers.smtp_registry import Kind, SmtpConnections
from mailpod.servers.tls import TlsProvider
from mailpod.sessions.services import Services
from mailpod.sessions.smtp import MX, SUBMISSION, SUBMISSIONS, SmtpSession, SmtpShared

_log: Final = structlog.get_logger(__name__)
_RULES: Final = {ListenerName.SMTP: MX, ListenerName.SUBMISSION: SUBMISSION, ListenerName.SUBMISSIONS: SUBMISSIONS}


class SmtpServer:
    """A pod's SMTP listeners, and all that their sessions share.

    `trusted` (whose PROXY headers are believed) and the provider's context hold for connections to come, and may be replaced at any time.
    """

    def __init__(self, services: Services, tls: TlsProvider | None, trusted: TrustedPeers | None = None) -> None:
        """`tls` None: neither STARTTLS nor a Submissions listener, so nobody can send."""
        self.services = services
        self.tls = tls
        self.trusted = trusted if trusted is not None else TrustedPeers(())
        self.shared = SmtpShared(services)
        self.connections = SmtpConnections(services.clock)
        self.ports: dict[ListenerName, int] = {}  # as bound: for port 0 the one that the kernel chose
        self._servers: dict[ListenerName, asyncio.Server] = {}

    def factory(self, name: ListenerName) -> Callable[[], SmtpConnection]:
        """What `loop.create_server` calls for each connection; the server itself is opened without TLS."""
        kind = Kind(_RULES[name], Metrics(_RULES[name].protocol))
        template = self._template()
        return lambda: SmtpConnection(self, kind, template)

    def _template(self) -> dict[str, Any]:
        instance = SMTP(None, hostname=self.services.hostname, loop=asyncio.get_running_loop())
        template = dict(instance.__dict__)
        # Bound to the template or to one connection.
        template.update(_client_connected_cb=None, _strong_reader=None, _stream_reader_wr=None, _smtp_methods={}, _auth_methods={})
        return template

    async def listen(self, name: ListenerName, port: int, host: str | None = None) -> int:
        """Open a port (0: any) on `host` (None: all addresses); returns it. Raises OSError when it is taken or not allowed."""
        assert self.tls is not None or name is not ListenerName.SUBMISSIONS
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.factory(name), host, port, backlog=limits.LISTEN_BACKLOG, reuse_address=True)
        self.connections.start()
        self._servers[name] = server
        self.ports[name] = bound = int(server.sockets[0].getsockname()[1])
        _log.info("listening", listener=name.value, host=host or "*", port=bound)
        return bound

    def stop_accepting(self) -> None:
        """Close the listening sockets: new clients go to other pods."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def close_one(self, name: ListenerName) -> None:
        """Close one of them, after the configuration dropped it."""
        server = self._servers.pop(name, None)
        self.ports.pop(name, None)
        if server is not None:
            server.close()

    def close_for(self, account_address: str, reason: Reason) -> int:
        """End the sessions that are logged in to an account; returns how many."""
        return self.connections.close_for(account_address, reason)

    def sessions(self) -> Iterable[SmtpSession]:
        """The sessions that are open now."""
        return self.connections.sessions()

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, let what is under way finish, say 421 to the rest; returns how many connections had to be cut."""
        self.stop_accepting()
        cut = await self.connections.drain(timeout_s)
        await self.connections.stop()
        return cut


async def start_smtp(
    listeners: Iterable[ListenerConfig],
    services: Services,
    tls: TlsProvider | None,
    trusted_cidrs: Iterable[str] = (),
    host: str | None = None,
) -> SmtpServer:
    """Open the SMTP ones of `listeners`. Raises OSError when a port cannot be had (nothing stays open then), ValueError for a bad CIDR."""
    server = SmtpServer(services, tls, TrustedPeers(trusted_cidrs))
    try:
        for listener in listeners:
            if listener.name in _RULES:
                await server.listen(listener.name, listener.port, host)
    except OSError:
        server.stop_accepting()
        await server.connections.stop()
        raise
    return server

"""IMAP's listeners: 143 (STARTTLS) and 993 (TLS from the first byte)."""

from __future__ import annotations

from collections.abc import Callable

from mailpod.protocol.imap import responses
from mailpod.servers.connection import Connection, connection_factory
from mailpod.servers.registry import Connections, Endpoint
from mailpod.sessions.imap.hub import Hub
from mailpod.sessions.imap.session import ImapSession
from mailpod.sessions.services import Services


def imap_factories(services: Services, connections: Connections) -> tuple[Callable[[], Connection], Callable[[], Connection]]:
    """Protocol factories for `Listeners.open`: for IMAP and for IMAPS. Call it once a pod: both share one `Hub`."""
    hub = Hub(services)
    busy = responses.bye("Too many connections; try again later", "UNAVAILABLE")

    def endpoint(label: str, *, implicit_tls: bool) -> Endpoint:
        return Endpoint(label, implicit_tls, lambda wire: ImapSession(services, hub, wire), busy)

    return (
        connection_factory(connections, endpoint("imap", implicit_tls=False)),
        connection_factory(connections, endpoint("imaps", implicit_tls=True)),
    )

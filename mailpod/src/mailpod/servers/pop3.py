"""POP3's listeners: 110 (STLS) and 995 (TLS from the first byte)."""

from __future__ import annotations

from collections.abc import Callable

from mailpod.protocol.pop3 import responses
from mailpod.servers.connection import Connection, connection_factory
from mailpod.servers.registry import Connections, Endpoint
from mailpod.sessions.pop3.session import Pop3Session, Pop3Shared
from mailpod.sessions.services import Services


def pop3_factories(services: Services, connections: Connections) -> tuple[Callable[[], Connection], Callable[[], Connection]]:
    """Protocol factories for `Listeners.open`: for POP3 and for POP3S."""
    shared = Pop3Shared()
    busy = responses.err("Too many connections; try again later", "SYS/TEMP")

    def endpoint(label: str, *, implicit_tls: bool) -> Endpoint:
        return Endpoint(label, implicit_tls, lambda wire: Pop3Session(wire, services, shared), busy)

    return (
        connection_factory(connections, endpoint("pop3", implicit_tls=False)),
        connection_factory(connections, endpoint("pop3s", implicit_tls=True)),
    )

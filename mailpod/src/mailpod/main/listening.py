"""All listeners of a pod as one thing: opened and closed by configuration, drained together, sessions ended by account."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

import structlog

from mailpod.contract import ListenerConfig, ListenerName
from mailpod.errors import Reason
from mailpod.servers.imap import imap_factories
from mailpod.servers.listener import Listeners
from mailpod.servers.pop3 import pop3_factories
from mailpod.servers.proxy import TrustedPeers
from mailpod.servers.registry import Connections
from mailpod.servers.smtp import SmtpServer
from mailpod.servers.tls import TlsProvider
from mailpod.sessions.services import Services

log = structlog.get_logger(__name__)

SMTP_LISTENERS: Final = frozenset((ListenerName.SMTP, ListenerName.SUBMISSION, ListenerName.SUBMISSIONS))
ACCESS_ENDED: Final = Reason(
    "access-ended", 421, "4.2.1", "NO", "CONTACTADMIN", "SYS/PERM", "This mailbox cannot be used any more; ask the administrator"
)


class Listening:
    """The pod's open ports. `trust`, `open` and `close_others` may be called again at any time."""

    def __init__(self, services: Services, tls: TlsProvider, bind: str | None, trusted_cidrs: Iterable[str]) -> None:
        trusted = TrustedPeers(trusted_cidrs)
        self._bind = bind
        self._open: dict[ListenerName, int] = {}  # as configured
        self._sockets = Listeners()
        self._clients = Connections(services.clock, services.entropy, tls, trusted)
        self._smtp = SmtpServer(services, tls, trusted)
        imap, imaps = imap_factories(services, self._clients)
        pop3, pop3s = pop3_factories(services, self._clients)
        self._factories = {
            ListenerName.IMAP: imap,
            ListenerName.IMAPS: imaps,
            ListenerName.POP3: pop3,
            ListenerName.POP3S: pop3s,
        }

    def start(self) -> None:
        """Begin to watch over connections. Needs a running loop."""
        self._clients.start()

    async def open(self, listeners: Iterable[ListenerConfig]) -> None:
        """Open those that are not open, all or none. Raises OSError when a port is taken; then nothing has changed."""
        fresh: list[tuple[ListenerName, int | None]] = []
        try:
            for listener in listeners:
                name, port = listener.name, listener.port
                if self._open.get(name) == port:
                    continue
                if name in self._open:
                    # The port of a listener moves: the old one is closed first, since both are known by the one name.
                    fresh.append((name, self._open[name]))
                    await self._close(name)
                else:
                    fresh.append((name, None))
                await self._listen(name, port)
        except OSError as error:
            for name, former in fresh:
                await self._close(name)
                if former is not None:
                    await self._listen(name, former)
            raise OSError(error.errno, f"port {port} of listener {name} cannot be opened: {error.strerror}") from None

    async def close_others(self, listeners: Iterable[ListenerConfig]) -> None:
        """Close those that are not listed; sessions that came through them go on."""
        wanted = {listener.name for listener in listeners}
        for name in [name for name in self._open if name not in wanted]:
            await self._close(name)

    def trust(self, cidrs: Iterable[str]) -> None:
        """Whose PROXY headers are believed, for connections to come."""
        self._clients.trusted = self._smtp.trusted = TrustedPeers(cidrs)

    def end_sessions(self, accounts: Collection[str]) -> None:
        """Log the owners of these accounts out."""
        if not accounts:
            return
        ended = sum(self._smtp.close_for(address, ACCESS_ENDED) for address in accounts)
        ended += self._clients.close_for(accounts, ACCESS_ENDED)
        if ended:
            log.info("sessions-ended", reason=ACCESS_ENDED.name, sessions=ended)

    def stop_accepting(self) -> None:
        """Close all ports."""
        self._sockets.stop_accepting()
        self._smtp.stop_accepting()
        self._open.clear()

    async def shut_down(self, timeout_s: float) -> bool:
        """BYE, 421 and closing for all; returns whether nobody had to be cut."""
        cut = await asyncio.gather(self._clients.drain(timeout_s), self._smtp.drain(timeout_s))
        await self._clients.stop()
        return not any(cut)

    async def _listen(self, name: ListenerName, port: int) -> None:
        if name in SMTP_LISTENERS:
            await self._smtp.listen(name, port, self._bind)
        else:
            await self._sockets.open(name, port, self._factories[name], self._bind)
        self._open[name] = port

    async def _close(self, name: ListenerName) -> None:
        if self._open.pop(name, None) is None:
            return
        if name in SMTP_LISTENERS:
            self._smtp.close_one(name)
        else:
            await self._sockets.close_one(name)

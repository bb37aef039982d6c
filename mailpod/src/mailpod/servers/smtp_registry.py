"""All SMTP connections of a pod: caps in total and by client, the sweep for timeouts, closing by account, draining."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import structlog

from mailpod.auth.throttle import address_key
from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.ports import Clock
from mailpod.servers.registry import Metrics
from mailpod.sessions.smtp import Rules, SmtpSession, reasons

_log: Final = structlog.get_logger(__name__)


class Kind(NamedTuple):
    """What sets the connections of one listener apart."""

    rules: Rules
    metrics: Metrics


class SweptConnection(Protocol):
    """A connection, as the registry sees it."""

    mail: SmtpSession | None

    def sweep(self, now: float, *, pressed: bool) -> None:
        """Look whether something has taken too long."""

    def shut_down(self) -> None:
        """End as soon as nothing is under way."""

    def abort(self) -> None:
        """Cut the connection now."""


class SmtpConnections:
    """One per pod, for all SMTP listeners together."""

    def __init__(self, clock: Clock, *, sessions_max: int = limits.SESSIONS_MAX, per_peer_max: int = limits.SESSIONS_PER_PEER_MAX) -> None:
        self._clock = clock
        self._sessions_max = sessions_max
        self._per_peer_max = per_peer_max
        self._all: set[SweptConnection] = set()
        self._by_peer: dict[str, int] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._draining = False
        self._empty: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._all)

    def start(self) -> None:
        """Begin to sweep. Needs a running loop."""
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())

    async def stop(self) -> None:
        """Cut what is still open and end the sweep."""
        for connection in list(self._all):
            connection.abort()
        sweeper, self._sweeper = self._sweeper, None
        if sweeper is not None:
            sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeper

    def register(self, connection: SweptConnection) -> Reason | None:
        """Count a connection in; a reason: it is turned away, and not counted."""
        if self._draining or len(self._all) >= self._sessions_max:
            return reasons.BUSY_SESSIONS
        self._all.add(connection)
        return None

    def forget(self, connection: SweptConnection) -> None:
        """The connection is gone."""
        self._all.discard(connection)
        if not self._all and self._empty is not None:
            self._empty.set()

    def admit(self, address: str) -> str | None:
        """Count a connection of this client in; the key to `release` it by, or None when it has too many."""
        key = address_key(address)
        count = self._by_peer.get(key, 0)
        if count >= self._per_peer_max:
            return None
        self._by_peer[key] = count + 1
        return key

    def release(self, key: str) -> None:
        """Count it out."""
        count = self._by_peer[key] - 1
        if count:
            self._by_peer[key] = count
        else:
            del self._by_peer[key]

    def sessions(self) -> Iterator[SmtpSession]:
        """The sessions that are open now; each has `account_address` and `close_for`."""
        for connection in list(self._all):
            if connection.mail is not None:
                yield connection.mail

    def close_for(self, account_address: str, reason: Reason) -> int:
        """End the sessions that are logged in to an account (its password or state changed); returns how many."""
        count = 0
        for session in self.sessions():
            if session.account_address == account_address:
                session.close_for(reason)
                count += 1
        return count

    async def drain(self, timeout_s: float) -> int:
        """421 to everybody as soon as nothing is under way for them; cut who is left after `timeout_s`. Returns how many were cut."""
        self._draining = True
        if self._all:
            self._empty = asyncio.Event()
            for connection in list(self._all):
                connection.shut_down()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
        left = list(self._all)
        for connection in left:
            connection.abort()
        return len(left)

    def sweep(self) -> None:
        """One look at all connections."""
        now = self._clock.monotonic()
        pressed = len(self._all) >= self._sessions_max * limits.SESSIONS_PRESSURE_SHARE
        for connection in list(self._all):
            try:
                connection.sweep(now, pressed=pressed)
            except Exception:  # noqa: BLE001 -- one session's fault must not end the sweep
                _log.exception("sweep-fault")

    async def _sweep_forever(self) -> None:
        while True:
            await self._clock.sleep(limits.SWEEP_PERIOD_S)
            self.sweep()

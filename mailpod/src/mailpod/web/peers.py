"""Telling the other pods of the fleet that a log has grown, so that their sessions see it at once.

A hint and nothing more: batched, bounded, sent once and forgotten. A pod that misses one finds the commit by looking at the bucket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from mailpod.limits import web as limits
from mailpod.ports import Clock
from mailpod.telemetry import PEER_NOTIFICATIONS
from mailpod.web import signing

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = structlog.get_logger(__name__)

PATH = "/internal/notify"
_SENT = {result: PEER_NOTIFICATIONS.labels("sent", result) for result in ("ok", "refused", "failed", "dropped")}


class Notification(msgspec.Struct, frozen=True):
    """The body of a notification: who says it, and the newest number of each log."""

    pod: str
    commits: list[tuple[str, int]]


class _Peer:
    """One other pod: what it has still to be told, and the task that tells it while there is anything."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pending: dict[str, int] = {}
        self.task: asyncio.Task[None] | None = None
        self.failures = 0


class Peers:
    """All other pods. `committed` costs nothing where there are none."""

    def __init__(self, clock: Clock, fleet_key: Callable[[], bytes | None], pod_id: str) -> None:
        self._clock = clock
        self._fleet_key = fleet_key
        self._pod_id = pod_id
        self._peers: dict[str, _Peer] = {}
        self._session: aiohttp.ClientSession | None = None
        self._configured: tuple[str, ...] = ()
        self._resolver: asyncio.Task[None] | None = None
        self._port = 0

    async def configure(self, peers: Sequence[str], web_port: int) -> None:
        """Use these from now on: URLs, or one DNS name (with a port, or `web_port`) that resolves to all pods."""
        if tuple(peers) == self._configured and web_port == self._port:
            return
        self._configured, self._port = tuple(peers), web_port
        if self._resolver is not None:
            self._resolver.cancel()
            self._resolver = None
        urls = [peer.rstrip("/") for peer in peers if "://" in peer]
        names = [peer for peer in peers if "://" not in peer]
        self._replace(urls)
        if names:
            self._resolver = self._spawn(self._resolve(urls, names))

    def committed(self, name: str, seq: int) -> None:
        """A log of this name has grown to `seq`: tell the others."""
        for peer in self._peers.values():
            if len(peer.pending) >= limits.NOTIFY_PENDING_MAX and name not in peer.pending:
                _SENT["dropped"].inc()
                continue
            if peer.pending.get(name, -1) < seq:
                peer.pending[name] = seq
            if peer.task is None:
                peer.task = self._spawn(self._tell(peer))

    async def close(self) -> None:
        """Stop; what is pending is dropped."""
        tasks = [task for task in (self._resolver, *(peer.task for peer in self._peers.values())) if task is not None]
        self._peers = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def _replace(self, urls: Sequence[str]) -> None:
        wanted = dict.fromkeys(urls[: limits.PEERS_MAX])
        for url in [url for url in self._peers if url not in wanted]:
            task = self._peers.pop(url).task
            if task is not None:
                task.cancel()
        for url in wanted:
            if url not in self._peers:
                self._peers[url] = _Peer(url)

    async def _resolve(self, urls: list[str], names: list[str]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            found = list(urls)
            try:
                for name in names:
                    parts = urlsplit(f"//{name}")
                    port = parts.port or self._port
                    hosts = {str(row[4][0]) for row in await loop.getaddrinfo(parts.hostname, port)}
                    found += [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host in sorted(hosts)]
                self._replace(found)
            except OSError as error:
                log.warning("peers-not-resolved", names=names, error=str(error))
            await self._clock.sleep(limits.PEER_RESOLVE_S)

    async def _tell(self, peer: _Peer) -> None:
        try:
            while peer.pending:
                batch = list(peer.pending.items())[: limits.NOTIFY_COMMITS_MAX]
                for name, _ in batch:
                    del peer.pending[name]
                await self._post(peer, batch)
                # The first commit after a pause goes at once; those that follow gather meanwhile.
                pause = limits.NOTIFY_INTERVAL_S
                if peer.failures:
                    pause = min(limits.NOTIFY_BACKOFF_S_MAX, 0.1 * 2.0 ** min(peer.failures, 10))
                await self._clock.sleep(pause)
        finally:
            peer.task = None

    async def _post(self, peer: _Peer, batch: list[tuple[str, int]]) -> None:
        key = self._fleet_key()
        if key is None:
            _SENT["dropped"].inc(len(batch))
            return
        if self._session is None:
            connector = aiohttp.TCPConnector(limit_per_host=1, force_close=False)
            timeout = aiohttp.ClientTimeout(total=limits.NOTIFY_TIMEOUT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        body = msgspec.json.encode(Notification(self._pod_id, batch))
        headers = {signing.HEADER: signing.sign(key, "POST", PATH, body, self._clock.now())}
        result = "failed"
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with self._session.post(peer.url + PATH, data=body, headers=headers) as response:
                result = "ok" if response.status == 204 else "refused"
        _SENT[result].inc()
        if result == "ok":
            peer.failures = 0
            return
        peer.failures += 1
        if peer.failures == 1:
            log.warning("peer-not-told", peer=peer.url, result=result)

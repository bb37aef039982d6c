"""The pod's inner HTTP server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog
from aiohttp import web
from prometheus_client import GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mailpod.errors import MailError
from mailpod.limits import web as limits
from mailpod.ports import Clock, Offload
from mailpod.telemetry import PEER_NOTIFICATIONS, REGISTRY
from mailpod.web import signing
from mailpod.web.health import Health
from mailpod.web.peers import Notification

log = structlog.get_logger(__name__)

# CPU, memory, open files, garbage collections: what Prometheus' own registry would have.
for _collector in (ProcessCollector, PlatformCollector, GCCollector):
    _collector(registry=REGISTRY)

_RECEIVED = {result: PEER_NOTIFICATIONS.labels("received", result) for result in ("ok", "own", "refused")}


class UsageOf(NamedTuple):
    """What one account holds."""

    bytes: int
    messages: int


class Hooks(NamedTuple):
    """What the server asks of the rest of the pod; all called on the loop."""

    fleet_key: Callable[[], bytes | None]
    committed_elsewhere: Callable[[str, int], None]  # a log's name and the newest number that another pod knows
    status: Callable[[], dict[str, object]]
    usage: Callable[[str], Awaitable[UsageOf | None]]  # of the account of an address; None: no such mailbox here


class WebServer:
    """Health, metrics and the fleet's own requests on one port."""

    def __init__(self, health: Health, clock: Clock, offload: Offload, hooks: Hooks, pod_id: str) -> None:
        self._health = health
        self._clock = clock
        self._offload = offload
        self._hooks = hooks
        self._pod_id = pod_id
        self._runner: web.AppRunner | None = None
        self._metrics = b""
        self._metrics_at = float("-inf")
        self._notification = msgspec.json.Decoder(Notification)

    async def start(self, host: str | None, port: int) -> None:
        """Listen. Raises OSError when the port is taken."""
        app = web.Application(client_max_size=limits.REQUEST_BYTES_MAX)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_post("/internal/notify", self._notify)
        app.router.add_get("/internal/status", self._status)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        alive = self._health.alive
        return web.json_response({"alive": alive}, status=200 if alive else 503)

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._health.ready
        body = {"ready": ready, "reasons": self._health.obstacles, "notes": self._health.notes}
        return web.json_response(body, status=200 if ready else 503)

    async def _metrics_page(self, _: web.Request) -> web.Response:
        now = self._clock.monotonic()
        if now - self._metrics_at > limits.METRICS_AGE_S:
            self._metrics_at = now
            # In a thread: rendering some hundred series takes ten milliseconds, in which nobody would be served.
            self._metrics = await self._offload(generate_latest, REGISTRY)
        return web.Response(body=self._metrics, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _notify(self, request: web.Request) -> web.Response:
        body = await request.read()
        if (refusal := self._refusal(request, body)) is not None:
            return refusal
        try:
            notification = self._notification.decode(body)
        except msgspec.DecodeError:
            _RECEIVED["refused"].inc()
            return web.json_response({"error": "not a notification"}, status=400)
        if notification.pod == self._pod_id:
            # The fleet's one DNS name leads to this pod as well.
            _RECEIVED["own"].inc()
            return web.Response(status=204)
        for name, seq in notification.commits[: limits.NOTIFY_COMMITS_MAX]:
            self._hooks.committed_elsewhere(name, seq)
        _RECEIVED["ok"].inc()
        return web.Response(status=204)

    async def _status(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request, b"")) is not None:
            return refusal
        accounts: dict[str, object] = {}
        for address in _asked(request.query.getall("account", [])):
            try:
                usage = await self._hooks.usage(address)
            except MailError as error:
                accounts[address] = {"error": error.reason.name}
            else:
                accounts[address] = usage._asdict() if usage is not None else {"error": "no-such-mailbox"}
        status = {**self._hooks.status(), "pod": self._pod_id, "ready": self._health.ready, "reasons": self._health.obstacles}
        return web.json_response({**status, "notes": self._health.notes, "accounts": accounts})

    def _refusal(self, request: web.Request, body: bytes) -> web.Response | None:
        value = request.headers.get(signing.HEADER, "")
        fault = signing.fault(self._hooks.fleet_key(), request.method, request.path_qs, body, value, self._clock.now())
        if not fault:
            return None
        _RECEIVED["refused"].inc()
        log.warning("internal-request-refused", path=request.path, peer=request.remote, why=fault)
        return web.json_response({"error": fault}, status=403)


def _asked(addresses: Sequence[str]) -> list[str]:
    return sorted(set(addresses))[: limits.STATUS_ACCOUNTS_MAX]

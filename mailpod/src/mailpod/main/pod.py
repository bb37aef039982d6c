"""One pod: made from a configuration, changed by another, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog
from cryptography import x509

from mailpod.adapters import conformance
from mailpod.adapters.objects import Bucket, open_bucket
from mailpod.adapters.replaceable import ReplaceableStore
from mailpod.adapters.system import ThreadOffload
from mailpod.auth.authenticator import Authenticator
from mailpod.contract import MailboxConfig, MailboxState, PodConfig
from mailpod.directory.directory import Directory
from mailpod.errors import StoreUnavailable
from mailpod.limits import web as limits
from mailpod.main import logs
from mailpod.main.configuration import ConfigError, Configuration
from mailpod.main.listening import Listening
from mailpod.main.storage import Storage
from mailpod.ports import Clock, Entropy
from mailpod.servers.tls import KeyPair, TlsProvider, self_made
from mailpod.sessions.services import Services
from mailpod.telemetry import CONFIG_LOADED
from mailpod.web.app import Hooks, UsageOf, WebServer
from mailpod.web.health import Health
from mailpod.web.peers import Peers

log = structlog.get_logger(__name__)

OFFLOAD_THREADS = 4  # argon2 holds no interpreter lock; more threads than cores only wait


class BucketUnfitError(Exception):
    """The bucket does not keep the promises that the store rests on; the text says which and who does."""


class Pod:
    """Owns everything that runs. `start`, then any number of `apply`, then `drain`."""

    def __init__(self, first: Configuration, clock: Clock, entropy: Entropy, data: Path | None, bind: str | None) -> None:
        self.configuration = first
        self.clock = clock
        self.health = Health(clock)
        self._entropy = entropy
        self._bind = bind
        self._id = entropy.bytes(6).hex()
        self._offload = ThreadOffload(OFFLOAD_THREADS)
        self._objects = ReplaceableStore(_bucket(first, clock))
        self._peers = Peers(clock, self._fleet_key, self._id)
        self._storage = Storage(self._objects, clock, entropy, self._offload, first.pod.storage, data, self._id, self._peers.committed)
        hooks = Hooks(self._fleet_key, self._storage.committed_elsewhere, self._status, self._usage)
        self._web = WebServer(self.health, clock, self._offload, hooks, self._id)
        self._own: tuple[str, KeyPair] | None = None  # a self-made certificate and the name it is for
        self._tls = TlsProvider(self._certificate(first), first.pod.tls_min_version)
        self._services = Services(
            hostname=first.pod.hostname,
            store=self._storage.store,
            directory=Directory(first.pod, first.mailboxes),
            authenticator=Authenticator(clock, entropy, self._offload, first.fleet_key),
            clock=clock,
            entropy=entropy,
            offload=self._offload,
        )
        self._listening = Listening(self._services, self._tls, bind, first.pod.proxy_trusted_cidrs)
        self._heartbeat: asyncio.Task[None] | None = None
        self._open = False  # listeners are

    async def start(self) -> None:
        """Come up to readiness. Raises BucketUnfitError; OSError when a port cannot be opened."""
        pod = self.configuration.pod
        log.info("starting", pod=self._id, hostname=pod.hostname, generation=pod.generation, bucket=pod.storage.bucket)
        self._heartbeat = asyncio.get_running_loop().create_task(self.health.heartbeat())
        await self._web.start(self._bind, pod.web_port)
        await self._probe()
        await self._storage.start()
        self._listening.start()
        pod = self.configuration.pod  # it may have been replaced while the bucket was waited for
        await self._listening.open(pod.listeners)
        self._open = True
        await self._peers.configure(pod.peers, pod.web_port)
        CONFIG_LOADED.labels(pod.generation).set(1)
        self.health.clear("start")
        log.info("ready", pod=self._id, listeners={listener.name: listener.port for listener in pod.listeners}, web=pod.web_port)

    async def apply(self, new: Configuration) -> None:
        """Put another configuration in force, wholly or (by raising) not at all. No connection is dropped but those of people who lost
        their mailbox.

        Raises ConfigError for what cannot change while a pod runs, StoreUnavailable when new bucket keys do not work (yet), OSError when a
        new port cannot be opened.
        """
        old = self.configuration
        if faults := list(_fixed(old.pod, new.pod)):
            raise ConfigError(faults)
        certificate = self._certificate(new)
        bucket = None
        if (old.credentials, old.s3_ca) != (new.credentials, new.s3_ca):
            bucket = _bucket(new, self.clock)
            if self._open:
                # Keys that do not work would turn every delivery into a 451: the old ones stay until the new ones do.
                await bucket.list(f"{new.pod.storage.prefix.strip('/')}/v1/".lstrip("/"), limit=1)
        if self._open:
            await self._listening.open(new.pod.listeners)  # the last thing that can fail; ports that were open are left alone
        if bucket is not None:
            self._objects.inner = bucket
        self.configuration = new
        self._services.directory = Directory(new.pod, new.mailboxes)
        self._services.hostname = new.pod.hostname
        logs.set_level(new.pod.log_level)
        self._listening.trust(new.pod.proxy_trusted_cidrs)
        if self._tls.replace(certificate, new.pod.tls_min_version):
            log.info("certificate-loaded", min_version=new.pod.tls_min_version)
        if not self._open:
            return  # `start` goes on with it
        await self._peers.configure(new.pod.peers, new.pod.web_port)
        await self._listening.close_others(new.pod.listeners)
        self._listening.end_sessions(locked_out(old.mailboxes, new.mailboxes))
        CONFIG_LOADED.clear()
        CONFIG_LOADED.labels(new.pod.generation).set(1)

    async def drain(self) -> bool:
        """End in order; returns whether all of it ended in time."""
        self.health.block("drain", "the pod is shutting down")
        self._listening.stop_accepting()
        complete = await self._listening.shut_down(limits.DRAIN_SESSIONS_S)
        try:
            async with asyncio.timeout(limits.DRAIN_STORE_S):
                await self._storage.drain()
        except TimeoutError:
            complete = False
        except StoreUnavailable as error:
            # What was acknowledged is in the bucket; what waits in transit is taken over by the others.
            log.warning("drain-store-unavailable", why=error.detail)
            complete = False
        await self.abandon()
        return complete

    async def abandon(self) -> None:
        """Stop what runs beside the sessions."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heartbeat
        await self._peers.close()
        await self._web.stop()
        await self._storage.close()
        self._offload.close()

    async def _probe(self) -> None:
        while True:
            try:
                findings = await conformance.probe(self._objects, self._entropy, self.configuration.pod.storage.prefix)
            except StoreUnavailable as error:
                # The bucket may come back, or its keys may be mended by a reload of the mount and a restart: say so and go on asking.
                self.health.block("bucket", f"the bucket does not answer: {error.detail}")
                log.warning("bucket-unavailable", why=error.detail)
                await self.clock.sleep(limits.PROBE_RETRY_S)
                continue
            for finding in findings:
                if not finding.passed:
                    log.error("bucket-check-failed", check=finding.check, fatal=finding.fatal, why=finding.detail)
            fatal = [f"{finding.check}: {finding.detail}" for finding in findings if finding.fatal and not finding.passed]
            if fatal:
                self.health.block("bucket", "; ".join(fatal))
                raise BucketUnfitError("; ".join(fatal))
            self.health.clear("bucket")
            return

    def _certificate(self, configuration: Configuration) -> KeyPair:
        """The given certificate, or one of the pod's own making for its host name."""
        given, name = configuration.certificate, configuration.pod.hostname
        if given is None:
            if self._own is None or self._own[0] != name:
                self._own = (name, self_made([name], self.clock.now()).pair)
                log.info("certificate-self-made", hostname=name)
            given = self._own[1]
        ends = x509.load_pem_x509_certificates(given.chain)[0].not_valid_after_utc.timestamp()
        expired = ends < self.clock.now()
        self.health.note("certificate", "the listeners' certificate has expired" if expired else None)
        if expired:
            log.warning("certificate-expired", hostname=name)
        return given

    def _fleet_key(self) -> bytes | None:
        return self.configuration.fleet_key

    def _status(self) -> dict[str, object]:
        pod = self.configuration.pod
        return {"generation": pod.generation, "mailboxes": len(self.configuration.mailboxes), "transit_idle": self._storage.transit_idle()}

    async def _usage(self, address: str) -> UsageOf | None:
        if self._services.directory.mailbox(address) is None:
            return None
        account = await self._services.store.open(address)
        return UsageOf(*account.view.usage)


def _bucket(configuration: Configuration, clock: Clock) -> Bucket:
    return open_bucket(configuration.pod.storage, clock, credentials=configuration.credentials, ca_pem=configuration.s3_ca)


def _fixed(old: PodConfig, new: PodConfig) -> Iterable[str]:
    """What a running pod cannot change: the operator rolls the pods for it."""
    before, after = msgspec.structs.asdict(old.storage), msgspec.structs.asdict(new.storage)
    for field in sorted(name for name in before if before[name] != after[name]):
        yield f"pod.json: storage.{field} cannot change while a pod runs; roll the pods"
    if old.web_port != new.web_port:
        yield "pod.json: web_port cannot change while a pod runs; roll the pods"


def locked_out(old: Iterable[MailboxConfig], new: Iterable[MailboxConfig]) -> frozenset[str]:
    """Addresses whose sessions must end: removed, locked, suspended, or a password that let them in is gone or another one now."""
    active = {box.address: box for box in new if box.state is MailboxState.ACTIVE}
    return frozenset(
        box.address for box in old if (now := active.get(box.address)) is None or not set(box.credentials) <= set(now.credentials)
    )

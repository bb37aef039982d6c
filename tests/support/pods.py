"""A fleet of real mail pods for tests and the bench: processes of `mailpod serve` on free ports, from a configuration directory.

The configuration is written as the contract says, without the operator, so that a test may also write what an operator never would.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
import trustme

from mailoperator.desired.verifiers import generated
from mailpod.adapters.objects import Credentials
from mailpod.contract import (
    SHARDS,
    VERSION,
    DomainConfig,
    ListenerConfig,
    ListenerName,
    MailboxConfig,
    MailboxState,
    PodConfig,
    Protocol,
    Shard,
    StorageConfig,
    shard_of,
)
from tests.support.seaweed import free_ports

PASSWORD = "correct-horse-battery-staple"
ALL_PROTOCOLS = tuple(Protocol)
MAILPOD = str(Path(sys.executable).with_name("mailpod"))
_READY_S = 60


def mailbox(address: str, *, password: str = PASSWORD, **options: Any) -> MailboxConfig:
    """A mailbox with the quick verifier of generated passwords, all protocols and 1 GiB, unless `options` say otherwise."""
    options.setdefault("quota_bytes", 1024**3)
    options.setdefault("protocols", ALL_PROTOCOLS)
    options.setdefault("credentials", (generated(b"fleet", address, password, None),))
    return MailboxConfig(address=address, **options)


def domain(name: str = "example.com", **options: Any) -> DomainConfig:
    """A domain whose role addresses go to alice@."""
    options.setdefault("role_mailbox", f"alice@{name}")
    options.setdefault("role_addresses", ("postmaster", "abuse"))
    return DomainConfig(domain=name, **options)


@dataclass
class Pod:
    """One pod: its process, its configuration directory and its ports on 127.0.0.1."""

    name: str
    config_dir: Path
    data_dir: Path
    ports: dict[ListenerName, int]
    web: int
    process: subprocess.Popen[bytes] | None = None
    endpoint: str | None = None  # another way to the bucket than the fleet's, for faults
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.data_dir / "pod.log"

    def start(self, *, wait: bool = True, env: dict[str, str] | None = None) -> Self:
        """Start the process; returns when it is ready."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [MAILPOD, "serve", "--config", str(self.config_dir), "--data", str(self.data_dir)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})}, start_new_session=True)
        if wait:
            self.wait_ready()
        return self

    def get(self, path: str) -> tuple[int, str]:
        """GET from the pod's web port: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def wait_ready(self, timeout_s: float = _READY_S) -> None:
        """Wait for /readyz. Raises RuntimeError with the pod's log when it ends or is not ready in time."""
        deadline = time.monotonic() + timeout_s
        last: object = None
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                break
            try:
                status, last = self.get("/readyz")
            except OSError as error:
                last = error
            else:
                if status == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} is not ready ({last}):\n{self.log.read_text(errors='replace')[-4000:]}")

    def metric(self, name: str, **labels: str) -> float:
        """The value of one metric, summed over the series that carry `labels`."""
        from prometheus_client.parser import text_string_to_metric_families

        total = 0.0
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items()):
                    total += sample.value
        return total

    def events(self) -> list[dict[str, Any]]:
        """The pod's log lines so far."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


@dataclass
class Fleet:
    """Several pods on one bucket. `write()` writes what all of them read; each pod has its own directory because ports differ."""

    base: Path
    storage: StorageConfig
    credentials: Credentials
    mailboxes: list[MailboxConfig]
    domains: tuple[DomainConfig, ...]
    pods: list[Pod]
    ca: trustme.CA
    options: dict[str, Any]
    _generation: int = 0

    @classmethod
    def create(
        cls,
        base: Path,
        storage: StorageConfig,
        credentials: Credentials,
        *,
        pods: int = 2,
        mailboxes: Iterable[MailboxConfig] | None = None,
        domains: Iterable[DomainConfig] | None = None,
        **options: Any,
    ) -> Self:
        """Write the configuration of `pods` pods; `options` go into `PodConfig`. Nothing runs yet."""
        members = []
        for number in range(pods):
            *ports, web = free_ports(len(ListenerName) + 1)
            name = f"pod-{number}"
            members.append(Pod(name, base / name / "config", base / name / "data", dict(zip(ListenerName, ports, strict=True)), web))
        boxes = list(mailboxes) if mailboxes is not None else [mailbox("alice@example.com"), mailbox("bob@example.com")]
        fleet = cls(base, storage, credentials, boxes, tuple(domains or (domain(),)), members, trustme.CA(), options)
        (base / "ca.pem").write_bytes(fleet.ca.cert_pem.bytes())
        fleet.issue_certificate()
        fleet.write()
        return fleet

    @property
    def ca_file(self) -> Path:
        """The PEM file to trust."""
        return self.base / "ca.pem"

    def tls_context(self) -> ssl.SSLContext:
        """A client's context that trusts the fleet."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def issue_certificate(self) -> None:
        """A fresh certificate for all pods."""
        leaf = self.ca.issue_cert("localhost", "127.0.0.1", "mail.example.com", common_name="localhost")  # fetchmail wants a name
        for pod in self.pods:
            pod.config_dir.mkdir(parents=True, exist_ok=True)
            _replace(pod.config_dir / "tls.crt", b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
            _replace(pod.config_dir / "tls.key", leaf.private_key_pem.bytes())

    def write(self) -> str:
        """Write mailboxes, domains and options for all pods; returns the new generation."""
        self._generation += 1
        generation = f"test-{self._generation}"
        peers = tuple(f"http://127.0.0.1:{pod.web}" for pod in self.pods)
        shards: dict[int, list[MailboxConfig]] = {}
        for box in self.mailboxes:
            shards.setdefault(shard_of(box.address), []).append(box)
        for pod in self.pods:
            settings = {
                "version": VERSION,
                "generation": generation,
                "hostname": "mail.example.com",
                "domains": self.domains,
                "storage": msgspec.structs.replace(self.storage, endpoint=pod.endpoint or self.storage.endpoint),
                "listeners": tuple(ListenerConfig(name, port) for name, port in pod.ports.items()),
                "web_port": pod.web,
                "peers": tuple(peer for peer in peers if not peer.endswith(f":{pod.web}")),
                **self.options,
            }
            for number in range(SHARDS):
                path = pod.config_dir / f"mailboxes-{number:02x}.json"
                if number in shards:
                    _replace(path, msgspec.json.encode(Shard(VERSION, tuple(shards[number]))))
                else:
                    path.unlink(missing_ok=True)
            _replace(pod.config_dir / "s3-access-key-id", self.credentials.access_key_id.encode())
            _replace(pod.config_dir / "s3-secret-access-key", self.credentials.secret_access_key.encode())
            _replace(pod.config_dir / "fleet.key", hashlib.sha256(b"fleet").hexdigest().encode())
            _replace(pod.config_dir / "pod.json", msgspec.json.encode(msgspec.convert(settings, PodConfig, from_attributes=True)))
        return generation

    def start(self) -> Self:
        """Start all pods, side by side."""
        for pod in self.pods:
            pod.start(wait=False)
        for pod in self.pods:
            pod.wait_ready()
        return self

    def set_state(self, address: str, state: MailboxState) -> None:
        """Change one mailbox's state (not written yet)."""
        self.mailboxes = [msgspec.structs.replace(box, state=state) if box.address == address else box for box in self.mailboxes]

    def stop(self) -> None:
        """End all pods."""
        for pod in self.pods:
            if pod.process is not None:
                try:
                    pod.stop()
                except subprocess.TimeoutExpired:
                    pod.kill()


def _replace(path: Path, data: bytes) -> None:
    """Write so that a reader sees the old file or the new one."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.rename(path)

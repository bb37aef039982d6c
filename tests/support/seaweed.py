"""A real S3 server for tests, the demo and the bench: SeaweedFS from PyPI, on free ports of 127.0.0.1, with its own credentials."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import subprocess
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ACCESS_KEY = "postroom-test"
SECRET_KEY = "postroom-test-secret"
_READY_S = 90  # a busy two-core machine has been seen to need 30


def free_ports(count: int, *, grpc: bool = False) -> list[int]:
    """`count` ports of 127.0.0.1 that nobody listens on; with `grpc`, whose port + 10000 is free too (SeaweedFS opens both).

    They lie below the range that the kernel gives to outgoing connections: one of those may take a port before its server starts.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(11_000, 22_000)
        siblings = (port, port + 10_000) if grpc else (port,)
        if port not in found and all(_is_free(each) for each in siblings):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Seaweed:
    """A running server. `stop()` ends it; it may be paused and resumed to make the store slow or deaf."""

    directory: Path
    process: subprocess.Popen[bytes]
    port: int
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    endpoint: str = field(init=False)

    def __post_init__(self) -> None:
        self.endpoint = f"http://127.0.0.1:{self.port}"

    @classmethod
    def start(cls, directory: Path, *, volume_mb: int = 64) -> Self:
        """Start a server that keeps its data in `directory`; returns when it answers S3 requests. Raises RuntimeError if not.

        Each bucket takes several volumes of `volume_mb` MB from what the disk has left, and writes fail when there are none: small ones
        let many tests have buckets, large ones suit much mail.
        """
        directory = directory.resolve()  # the server runs in it
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "s3.json"
        identity = {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, s3, metrics = free_ports(5, grpc=True)
        log = (directory / "weed.log").open("wb")
        command = [
            str(Path(sysconfig.get_path("scripts")) / "weed"), "-logtostderr=true",
            "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}", "-s3", f"-s3.port={s3}",
            f"-s3.config={config}", "-volume.max=0", f"-master.volumeSizeLimitMB={volume_mb}", "-master.telemetry=false",
            f"-metricsPort={metrics}", f"-s3.port.grpc={s3 + 10000}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory, start_new_session=True)
        log.close()
        server = cls(directory, process, s3)
        try:
            server._wait()
        except BaseException:
            server.stop()
            raise
        return server

    def _wait(self) -> None:
        # The S3 port answers before the filer can store: only a PUT that succeeds proves readiness.
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        client = boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10, s3={"addressing_style": "path"}),
        )  # fmt: skip
        deadline = time.monotonic() + _READY_S
        last: Exception | None = None
        try:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    break
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
                    connection.request("GET", "/")
                    connection.getresponse().read()
                    connection.close()
                    if not client.list_buckets().get("Buckets"):
                        client.create_bucket(Bucket="ready")
                    client.put_object(Bucket="ready", Key="probe", Body=b"x")
                except (OSError, http.client.HTTPException, BotoCoreError, ClientError) as error:
                    last = error
                    time.sleep(0.2)
                else:
                    return
        finally:
            client.close()
        tail = (self.directory / "weed.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"SeaweedFS did not become ready: {last!r}\n{tail}")

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )  # fmt: skip
        try:
            client.create_bucket(Bucket=name)
        finally:
            client.close()

    def pause(self) -> None:
        """Stop answering without closing a connection (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the server."""
        if self.process.poll() is None:
            self.process.kill()  # its data is thrown away; an orderly stop takes ten seconds
            self.process.wait()

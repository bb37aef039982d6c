"""Real pods from resources, as an administrator makes them: rendered by `mailoperator`, one process each, on free ports of 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
import yaml

from tests.support.seaweed import Seaweed, free_ports

EXAMPLES = Path(__file__).parents[2] / "examples"
# Names as in `.demo/endpoints.json`, and the listeners they stand for.
LISTENERS = {
    "smtp": "SMTP",
    "submission": "Submission",
    "submissions": "Submissions",
    "imap": "IMAP",
    "imaps": "IMAPS",
    "pop3": "POP3",
    "pop3s": "POP3S",
}
Documents = list[dict[str, Any]]


def program(name: str) -> str:
    """The path of a command of this environment."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def example_documents() -> Documents:
    """The resources of `examples/`."""
    return [item for path in sorted(EXAMPLES.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text()) if item]


@dataclass
class RunningPod:
    """One `mailpod serve`."""

    name: str
    directory: Path  # config/, log, cache/
    ports: dict[str, int]  # by LISTENERS' keys, and "web"
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, environment: dict[str, str] | None = None) -> None:
        """Start the process, without waiting for it."""
        command = [program("mailpod"), "serve", f"--config={self.config}", f"--data={self.directory / 'cache'}", "--bind=127.0.0.1"]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in a terminal must reach whoever started the pods, who then ends them in order.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether /readyz says yes, and what else it says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["web"], timeout=5)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            return answer.status == 200, json.loads(answer.read())
        except (OSError, http.client.HTTPException) as error:
            return False, {"reasons": {"web": repr(error)}}
        finally:
            connection.close()

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until the pod may be used. Raises RuntimeError with its log when that does not happen."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            if self.ready()[0]:
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not become ready: {self.ready()[1]}\n{self.log.read_text(errors='replace')[-4000:]}")

    def wait_generation(self, generation: str, timeout_s: float = 15) -> None:
        """Wait until a configuration is in force."""
        line = f'"event":"config-loaded","logger":"mailpod.main.reload","generation":"{generation}"'
        self.wait_log(line, timeout_s)

    def wait_log(self, text: str, timeout_s: float = 15) -> None:
        """Wait until the log has `text`. Raises RuntimeError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if text in self.log.read_text(errors="replace"):
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not log {text!r}:\n{self.log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """SIGKILL, as a node that loses power."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout_s: float = 90) -> int:
        """SIGTERM, and wait; returns the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode


@dataclass
class Fleet:
    """Pods that share a bucket, from one set of resources."""

    directory: Path
    store: Seaweed
    documents: Documents
    pods: list[RunningPod] = field(default_factory=list)
    bucket: str = "postroom"
    own_store: bool = False

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        pods: int = 2,
        documents: Documents | None = None,
        store: Seaweed | None = None,
        bucket: str = "postroom",
        wait: bool = True,
        make_bucket: bool = True,
    ) -> Fleet:
        """Start everything below `directory`; returns when all pods are ready."""
        directory.mkdir(parents=True, exist_ok=True)
        own = store is None
        fleet = cls(directory, store or Seaweed.start(directory / "store"), documents or example_documents(), [], bucket, own)
        try:
            if make_bucket:
                fleet.store.make_bucket(bucket)
            fleet._make_certificate()
            ports = free_ports(pods * (len(LISTENERS) + 1))
            for number in range(pods):
                names = [*LISTENERS, "web"]
                mine = dict(zip(names, ports[number * len(names) : (number + 1) * len(names)], strict=True))
                fleet.pods.append(RunningPod(f"pod-{number}", directory / f"pod-{number}", mine))
            for pod in fleet.pods:
                fleet.render(pod)
                pod.start()
            if wait:
                for pod in fleet.pods:
                    pod.wait_ready()
        except BaseException:
            fleet.stop()
            raise
        return fleet

    @property
    def ca(self) -> Path:
        """The authority of the pods' certificate."""
        return self.directory / "ca.pem"

    def _make_certificate(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        self.certificate(authority)

    def certificate(self, authority: trustme.CA) -> None:
        """Use a certificate of `authority` from the next `render` on."""
        issued = authority.issue_cert("localhost", "127.0.0.1", "mail.example.com")
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems).decode()
        self._tls = {"tls.crt": chain, "tls.key": issued.private_key_pem.bytes().decode()}

    def change(self, change: Callable[[Documents], None]) -> None:
        """Change the resources and render them for all pods."""
        change(self.documents)
        for pod in self.pods:
            self.render(pod)

    def render(self, pod: RunningPod) -> str:
        """`mailoperator render` for one pod: the same resources, but its own ports. Returns the generation."""
        folder = pod.directory / "resources"
        folder.mkdir(parents=True, exist_ok=True)
        documents = json.loads(json.dumps(self.documents))
        namespace = "mail"
        for document in documents:
            pods = document.get("spec", {}).get("pods") if document["kind"] == "MailDomain" else None
            if pods is not None:
                namespace = document["metadata"]["namespace"]
                pods["storage"]["s3"].update(
                    endpoint=self.store.endpoint, bucket=self.bucket, forcePathStyle=True, credentialsSecretRef={"name": "local-bucket"}
                )
                pods["listeners"] = [{"name": name, "port": pod.ports[key]} for key, name in LISTENERS.items()]
                pods["tls"] = {**pods.get("tls", {}), "secretRef": {"name": "local-certificate"}}
        keys = {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}
        for name, values in (("local-bucket", keys), ("local-certificate", self._tls)):
            meta = {"name": name, "namespace": namespace}
            documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values})
        # Replaced at once: a render that is running elsewhere reads the old file or the new one.
        fresh = folder / "all.yaml.new"
        fresh.write_text(yaml.safe_dump_all(documents, allow_unicode=True))
        fresh.replace(folder / "all.yaml")
        peers = [f"--peer=http://127.0.0.1:{other.ports['web']}" for other in self.pods if other is not pod]
        command = [program("mailoperator"), "render", str(folder), f"--config={pod.config}", f"--web-port={pod.ports['web']}", *peers]
        command.append(f"--credentials={self.directory / 'credentials.yaml'}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"render failed:\n{done.stdout}{done.stderr}")
        return str(json.loads((pod.config / "pod.json").read_text())["generation"])

    def accounts(self) -> dict[str, str]:
        """Passwords by address, given and generated."""
        remembered = yaml.safe_load_all((self.directory / "credentials.yaml").read_text())
        secrets = {
            item["metadata"]["name"]: item["stringData"] for item in [*self.documents, *remembered] if item and item["kind"] == "Secret"
        }
        domains = {item["metadata"]["name"]: item["spec"]["domain"] for item in self.documents if item["kind"] == "MailDomain"}
        found = {}
        for item in self.documents:
            if item["kind"] != "Mailbox":
                continue
            name, spec = item["metadata"]["name"], item["spec"]
            ref = spec.get("password", {}).get("secretRef", {"name": f"{name}-credentials"})
            address = f"{spec.get('localPart', name)}@{domains[spec['domainRef']['name']]}"
            if ref["name"] in secrets:
                found[address] = secrets[ref["name"]][ref.get("key", "password")]
        return found

    def stop(self) -> None:
        """End all pods, and the store if it was started here."""
        for pod in self.pods:
            if pod.process is not None and pod.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    pod.process.send_signal(signal.SIGTERM)
        for pod in self.pods:
            pod.stop()
        if self.own_store:
            self.store.stop()

    def endpoints(self) -> dict[str, Any]:
        """What other programs need to attach: the content of `.demo/endpoints.json`."""
        return {
            "pods": [{**pod.ports, "pid": pod.pid} for pod in self.pods],
            "accounts": [{"address": address, "password": password} for address, password in self.accounts().items()],
            "ca": str(self.ca.absolute()),
            "s3": {
                "endpoint": self.store.endpoint,
                "bucket": self.bucket,
                "prefix": _prefix(self.documents),
                "region": "us-east-1",
                "access_key": self.store.access_key,
                "secret_key": self.store.secret_key,
                "pid": self.store.process.pid,
            },
        }


def _prefix(documents: Iterable[dict[str, Any]]) -> str:
    return next((item["spec"]["pods"]["storage"]["s3"].get("prefix", "") for item in documents if item.get("spec", {}).get("pods")), "")


def remove(directory: Path) -> None:
    """Delete what a fleet left behind."""
    shutil.rmtree(directory, ignore_errors=True)

"""A real pod on a real bucket: reload without dropping a session, drain, and refusing to start on what is wrong."""

from __future__ import annotations

import http.client
import http.server
import imaplib
import json
import os
import re
import signal
import smtplib
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import trustme

from tests.demo.burst import Ledger, count, send
from tests.demo.fleet import LISTENERS, Fleet, RunningPod, program
from tests.support.seaweed import Seaweed, free_ports

ALICE, BOB = "alice@example.com", "bob@example.com"
PASSWORDS = {ALICE: "correct horse", BOB: "battery staple"}


def resources() -> list[dict[str, Any]]:
    version = "postroom.dev/v1alpha1"

    def mailbox(name: str) -> dict[str, Any]:
        spec = {"domainRef": {"name": "example-com"}, "password": {"secretRef": {"name": "passwords", "key": name}}}
        return {"apiVersion": version, "kind": "Mailbox", "metadata": {"name": name, "namespace": "mail"}, "spec": spec}

    spec = {"domain": "example.com", "pods": {"hostname": "mail.example.com", "storage": {"s3": {"bucket": "set-by-the-fleet"}}}}
    return [
        {"apiVersion": version, "kind": "MailDomain", "metadata": {"name": "example-com", "namespace": "mail"}, "spec": spec},
        mailbox("alice"),
        mailbox("bob"),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "passwords", "namespace": "mail"},
            "stringData": {address.split("@")[0]: password for address, password in PASSWORDS.items()},
        },
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Seaweed]:
    made = Seaweed.start(tmp_path_factory.mktemp("store"))
    yield made
    made.stop()


@pytest.fixture
def fleet(tmp_path, store, request) -> Iterator[Fleet]:
    bucket = request.node.name.replace("_", "-").lower()[:60].strip("-")
    made = Fleet.start(tmp_path / "fleet", pods=1, documents=resources(), store=store, bucket=bucket)
    yield made
    made.stop()


def trust(fleet: Fleet) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(fleet.ca))


def login(fleet: Fleet, address: str, password: str = "") -> imaplib.IMAP4_SSL:
    client = imaplib.IMAP4_SSL("127.0.0.1", fleet.pods[0].ports["imaps"], ssl_context=trust(fleet), timeout=20)
    try:
        client.login(address, password or PASSWORDS[address])
    except BaseException:
        client.shutdown()
        raise
    return client


def until(condition, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def spec_of(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item["spec"] for item in documents if item["metadata"]["name"] == name and "spec" in item)


def test_good_change_takes_effect_and_drops_nobody(fleet):
    """A new mailbox, a new certificate and a new log level, while Alice stays connected."""
    pod = fleet.pods[0]
    alice = login(fleet, ALICE)
    alice.select("INBOX")
    with smtplib.SMTP("127.0.0.1", pod.ports["smtp"], local_hostname="client.example.info") as smtp:
        smtp.ehlo()
        smtp.mail("x@example.info")
        assert smtp.rcpt("carol@example.com")[0] == 550
        fleet.documents.append(json.loads(json.dumps(next(item for item in fleet.documents if item["metadata"]["name"] == "bob"))))
        fleet.documents[-1]["metadata"]["name"] = "carol"
        spec_of(fleet.documents, "example-com")["pods"]["logLevel"] = "Debug"
        authority = trustme.CA()
        fleet.certificate(authority)
        pod.wait_generation(fleet.render(pod))
        # The very session that was refused a moment ago.
        assert smtp.rcpt("carol@example.com")[0] == 250
    assert alice.noop()[0] == "OK"
    fresh = ssl.create_default_context()
    fresh.load_verify_locations(cadata=authority.cert_pem.bytes().decode())
    with imaplib.IMAP4_SSL("127.0.0.1", pod.ports["imaps"], ssl_context=fresh, timeout=20) as carol:
        carol.login("carol@example.com", PASSWORDS[BOB])
    with pytest.raises(ssl.SSLCertVerificationError):
        imaplib.IMAP4_SSL("127.0.0.1", pod.ports["imaps"], ssl_context=trust(fleet), timeout=20)
    assert alice.noop()[0] == "OK"
    alice.logout()


def test_bad_change_is_refused_as_a_whole(fleet):
    """One file is broken and another has a new mailbox: neither takes effect, everybody goes on, and it is said."""
    pod = fleet.pods[0]
    alice = login(fleet, ALICE)
    good = (pod.config / "pod.json").read_bytes()
    data = (pod.config / "..data").resolve()
    (data / "pod.json").write_bytes(good.replace(b'"Info"', b'"Loud"'))
    until(lambda: "config" in pod.ready()[1]["notes"])
    ready, said = pod.ready()
    assert ready
    assert "log_level must be one of" in said["notes"]["config"]
    pod.wait_log('"event":"config-refused"')
    assert alice.noop()[0] == "OK"
    login(fleet, BOB).logout()
    with urlopen(pod, "/metrics") as answer:
        assert b'mailpod_config_reloads_total{result="refused"} 1.0' in answer.read()
    (data / "pod.json").write_bytes(good)
    until(lambda: "config" not in pod.ready()[1]["notes"])
    alice.logout()


def urlopen(pod: RunningPod, path: str):
    import contextlib

    connection = http.client.HTTPConnection("127.0.0.1", pod.ports["web"], timeout=10)
    connection.request("GET", path)

    @contextlib.contextmanager
    def answer():
        try:
            yield connection.getresponse()
        finally:
            connection.close()

    return answer()


def test_suspended_mailbox_is_logged_out(fleet):
    """Who was suspended must not go on reading; nobody else notices."""
    pod = fleet.pods[0]
    alice, bob = login(fleet, ALICE), login(fleet, BOB)
    with smtplib.SMTP("127.0.0.1", pod.ports["submission"], local_hostname="client.example.info") as sender:
        sender.starttls(context=trust(fleet))
        sender.login(BOB, PASSWORDS[BOB])
        spec_of(fleet.documents, "bob")["state"] = "Suspended"
        pod.wait_generation(fleet.render(pod))
        assert b"cannot be used any more" in bob.readline()
        bob.shutdown()
        assert sender.getreply()[0] == 421
    assert alice.noop()[0] == "OK"
    with pytest.raises(imaplib.IMAP4.error):
        login(fleet, BOB)
    with smtplib.SMTP("127.0.0.1", pod.ports["smtp"], local_hostname="client.example.info") as smtp:
        smtp.ehlo()
        smtp.mail("x@example.info")
        assert smtp.rcpt(BOB)[0] == 550
    alice.logout()


def test_bucket_keys_that_do_not_work_are_not_taken(fleet, store):
    """A typo in a rotated key must not turn every delivery into a 451."""
    pod = fleet.pods[0]
    right, store.secret_key = store.secret_key, "wrong"
    try:
        fleet.render(pod)
    finally:
        store.secret_key = right
    until(lambda: "config" in pod.ready()[1]["notes"], 30)
    with smtplib.SMTP("127.0.0.1", pod.ports["smtp"], local_hostname="client.example.info") as smtp:
        smtp.sendmail("x@example.info", [ALICE], b"Subject: x\r\n\r\nstill delivered\r\n")
    fleet.render(pod)
    until(lambda: "config" not in pod.ready()[1]["notes"])


def test_pods_wake_each_other(tmp_path, store):
    """Mail that one pod took is told at once to who idles on the other: by the signed notification, not by the minute's look."""
    fleet = Fleet.start(tmp_path / "fleet", pods=2, documents=resources(), store=store, bucket="two-pods")
    try:
        one, two = fleet.pods
        client = imaplib.IMAP4_SSL("127.0.0.1", two.ports["imaps"], ssl_context=trust(fleet), timeout=20)
        client.login(ALICE, PASSWORDS[ALICE])
        client.select("INBOX")
        client.send(b"i1 IDLE\r\n")
        assert client.readline().startswith(b"+ ")
        with smtplib.SMTP("127.0.0.1", one.ports["smtp"], local_hostname="client.example.info") as smtp:
            smtp.sendmail("x@example.info", [ALICE], b"Subject: x\r\n\r\nwake up\r\n")
        acknowledged = time.monotonic()
        line = client.readline()
        while b"EXISTS" not in line:
            assert line, "the connection ended"
            line = client.readline()
        assert time.monotonic() - acknowledged < 5
        client.send(b"DONE\r\n")
        while not line.startswith(b"i1 OK"):
            line = client.readline()
            assert line, "the connection ended"
        client.logout()
        with urlopen(two, "/metrics") as answer:
            assert b'mailpod_peer_notifications_total{direction="received",result="ok"}' in answer.read()
    finally:
        fleet.stop()


def test_rolling_restart_under_load_loses_nothing(fleet):
    """SIGTERM in the middle of a burst: what is under way is finished or refused, never left unanswered, and all of it is there."""
    pod = fleet.pods[0]
    ledger, sent = Ledger(), threading.Semaphore(0)
    addresses = [ALICE, BOB]
    senders = [
        threading.Thread(target=send, args=(ledger, [pod.ports["smtp"]], range(first, 120, 4), "roll", addresses, sent.release))
        for first in range(4)
    ]
    for sender in senders:
        sender.start()
    for _ in range(40):
        sent.acquire()
    assert pod.stop() == 0
    for sender in senders:
        sender.join()
    assert len(ledger.ok) >= 40
    assert not ledger.unknown
    pod.start()
    pod.wait_ready()
    result = count(ledger, pod.ports["imaps"], PASSWORDS, addresses, trust(fleet))
    assert result.good, result


def test_sigterm_drains(fleet):
    """A rolling update must say goodbye and lose nothing."""
    pod = fleet.pods[0]
    alice = login(fleet, ALICE)
    with smtplib.SMTP("127.0.0.1", pod.ports["smtp"], local_hostname="client.example.info") as smtp:
        smtp.sendmail("x@example.info", [ALICE, BOB], b"Subject: x\r\n\r\nto two\r\n")
        os.kill(pod.pid, signal.SIGTERM)
        line = alice.readline()
        assert line.startswith(b"* BYE"), line
        alice.shutdown()
        assert smtp.getreply()[0] == 421
    assert pod.stop() == 0
    assert '"event":"drained","logger":"mailpod.main.serve","complete":true' in pod.log.read_text()
    pod.start()
    pod.wait_ready()
    for address in (ALICE, BOB):
        client = login(fleet, address)
        assert client.select("INBOX")[1] == [b"1"]
        client.logout()


@pytest.mark.case(23)
def test_no_secret_in_the_log(fleet):
    """Neither passwords nor keys of anything that happened."""
    pod = fleet.pods[0]
    spec_of(fleet.documents, "example-com")["pods"]["logLevel"] = "Debug"
    pod.wait_generation(fleet.render(pod))
    login(fleet, ALICE).logout()
    with pytest.raises(imaplib.IMAP4.error):
        login(fleet, ALICE, "wrong-guess")
    with smtplib.SMTP("127.0.0.1", pod.ports["submission"], local_hostname="client.example.info") as sender:
        sender.starttls(context=trust(fleet))
        sender.login(BOB, PASSWORDS[BOB])
    files = {path.name: path.read_text().strip() for path in (pod.config / "..data").iterdir()}
    pod.stop()
    text = pod.log.read_text()
    for secret in (*PASSWORDS.values(), "wrong-guess", files["fleet.key"], files["s3-secret-access-key"], "$argon2id$", "PRIVATE KEY"):
        assert secret not in text


def test_pod_waits_for_a_bucket_that_it_can_use(tmp_path, store):
    """With keys that do not work the pod is not ready and says why; with better ones it comes up, without a restart."""
    right, store.secret_key = store.secret_key, "wrong"
    try:
        fleet = Fleet.start(
            tmp_path / "fleet", pods=1, documents=resources(), store=store, bucket="waited-for", wait=False, make_bucket=False
        )
    finally:
        store.secret_key = right
    pod = fleet.pods[0]
    try:
        until(lambda: "bucket" in pod.ready()[1]["reasons"], 30)
        assert "access denied" in pod.ready()[1]["reasons"]["bucket"]
        assert not pod.ready()[0]
        fleet.render(pod)
        pod.wait_ready(30)
        login(fleet, ALICE).logout()
    finally:
        fleet.stop()
    assert pod.process is not None
    assert pod.process.returncode == 0


def test_unreachable_bucket(tmp_path, store):
    """The pod says so, and still ends at once when asked to."""
    endpoint, store.endpoint = store.endpoint, f"http://127.0.0.1:{free_ports(1)[0]}"
    try:
        fleet = Fleet.start(tmp_path / "fleet", pods=1, documents=resources(), store=store, wait=False, make_bucket=False)
    finally:
        store.endpoint = endpoint
    pod = fleet.pods[0]
    try:
        until(lambda: "bucket" in pod.ready()[1]["reasons"], 30)
        assert "does not answer" in pod.ready()[1]["reasons"]["bucket"]
        with urlopen(pod, "/healthz") as answer:
            assert answer.status == 200
        started = time.monotonic()
        assert pod.stop() in (0, 5)
        assert time.monotonic() - started < 20
    finally:
        fleet.stop()


class Careless(http.server.BaseHTTPRequestHandler):
    """An S3 server that ignores If-None-Match, as some do."""

    objects: ClassVar[dict[str, bytes]] = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Last-Modified": "Mon, 02 Mar 2026 10:00:00 GMT", "ETag": '"e"', **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.objects[unquote(self.path)] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if "list-type" in parse_qs(parts.query):
            prefix = f"{parts.path}/{parse_qs(parts.query).get('prefix', [''])[0]}"
            keys = sorted(key for key in self.objects if key.startswith(prefix))
            row = "<Contents><Key>{}</Key><Size>1</Size><LastModified>2026-03-02T10:00:00.000Z</LastModified><ETag>e</ETag></Contents>"
            rows = "".join(row.format(key.split("/", 2)[2]) for key in keys)
            self.answer(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode())
        elif unquote(self.path) in self.objects:
            data = self.objects[unquote(self.path)]
            if "Range" in self.headers:
                first, last = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
                self.answer(206, data[first : last + 1], Content_Range=f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}")
            else:
                self.answer(200, data)
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def do_POST(self) -> None:
        keys = re.findall("<Key>(.*?)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode())
        for key in keys:
            self.objects.pop(f"{urlsplit(self.path).path}/{key}", None)
        rows = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self.answer(200, f"<DeleteResult>{rows}</DeleteResult>".encode())


def test_bucket_without_conditional_writes_is_refused(tmp_path, store):
    """On such a store two pods overwrite each other's mail: the pod must not start, and must say which stores do it right."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Careless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        fleet = Fleet(tmp_path, store, resources())
        fleet._make_certificate()
        pod = RunningPod("pod-0", tmp_path / "pod", dict(zip((*LISTENERS, "web"), free_ports(8), strict=True)))
        endpoint, store.endpoint = store.endpoint, f"http://127.0.0.1:{server.server_port}"
        try:
            fleet.render(pod)
        finally:
            store.endpoint = endpoint
        message = tmp_path / "termination-log"
        message.touch()
        done = subprocess.run(
            [program("mailpod"), "serve", f"--config={pod.config}", "--bind=127.0.0.1", f"--termination-log={message}"],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 4, done.stdout
        assert "the store ignores the condition" in message.read_text()
        assert "do it right" in message.read_text()
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("content", "said"), [(b"{", "pod.json"), (b'{"version":99}', "roll the pods")])
def test_broken_configuration_at_start(tmp_path, content, said):
    """Nothing is in force yet, so the pod ends and says why."""
    (tmp_path / "pod.json").write_bytes(content)
    message = tmp_path / "termination-log"
    message.touch()
    done = subprocess.run(
        [program("mailpod"), "serve", f"--config={tmp_path}", f"--termination-log={message}"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert said in message.read_text()
    assert b"Traceback" not in done.stdout + done.stderr
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()][-1] == "config-refused"


def test_taken_port(fleet):
    """A second pod on the same ports ends with a sentence instead of serving half."""
    pod = fleet.pods[0]
    done = subprocess.run(
        [program("mailpod"), "serve", f"--config={pod.config}", "--bind=127.0.0.1"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert b"address already in use" in done.stdout.lower()
    assert pod.ready()[0]
    assert Path(f"/proc/{pod.pid}").exists()

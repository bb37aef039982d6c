"""`make demo`: an S3 server and two pods from `examples/`, on free ports, until Ctrl-C. `--check`: kill one in a burst and count."""

from __future__ import annotations

import argparse
import contextlib
import imaplib
import json
import os
import poplib
import signal
import smtplib
import ssl
import sys
import threading
import time
from email.message import EmailMessage
from pathlib import Path
from typing import NoReturn

from tests.demo.burst import Count, Ledger, count, send
from tests.demo.fleet import Fleet, remove

BURST = 200
SENDERS = 4
KILL_AFTER = 60  # messages
HEAL_S = 120  # a dead pod's transit log is taken over within this


def main() -> int:
    """Run the demo or the check."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="kill one pod during a burst of mail, count, stop")
    parser.add_argument("--directory", type=Path, default=Path(".demo"))
    options = parser.parse_args()
    if not _free(options.directory):
        print(f"a demo is running already (see {options.directory}/endpoints.json)", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    remove(options.directory)
    fleet: Fleet | None = None
    try:
        print("starting SeaweedFS and two pods …", flush=True)
        fleet = Fleet.start(options.directory)
        _first_message(fleet)
        if options.check:
            return _check(fleet)
        _explain(fleet)
        _announce(fleet)
        while all(pod.process is not None and pod.process.poll() is None for pod in fleet.pods):
            time.sleep(0.5)
        print("a pod ended by itself; see its log", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping …", flush=True)
        return 0
    finally:
        # A second Ctrl-C must not leave processes behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        (options.directory / "endpoints.json").unlink(missing_ok=True)
        if fleet is not None:
            fleet.stop()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _free(directory: Path) -> bool:
    """Whether no demo that wrote `endpoints.json` is alive."""
    try:
        pids = [pod["pid"] for pod in json.loads((directory / "endpoints.json").read_text())["pods"]]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return False
    return True


def _tls(fleet: Fleet) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(fleet.ca))


def _first_message(fleet: Fleet) -> None:
    """Mail from outside into the first pod, and out of the second by IMAP and by POP3."""
    into, out = fleet.pods[0], fleet.pods[1]
    address, password = next(iter(fleet.accounts().items()))
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "visitor@example.info", address, "Welcome"
    message.set_content("This message went into one pod and is read from the other.\n")
    with smtplib.SMTP("127.0.0.1", into.ports["smtp"], local_hostname="client.example.info") as smtp:
        smtp.starttls(context=_tls(fleet))
        smtp.send_message(message)
    print(f"sent      to {address} by SMTP through {into.name}, port {into.ports['smtp']}")
    with imaplib.IMAP4_SSL("127.0.0.1", out.ports["imaps"], ssl_context=_tls(fleet)) as imap:
        imap.login(address, password)
        imap.select("INBOX", readonly=True)
        rows = imap.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        subject = rows[0][1].decode().strip() if isinstance(rows[0], tuple) else "nothing"
    print(f"read      {subject!r} by IMAP from {out.name}, port {out.ports['imaps']}")
    pop = poplib.POP3_SSL("127.0.0.1", out.ports["pop3s"], context=_tls(fleet))
    pop.user(address)
    pop.pass_(password)
    messages, size = pop.stat()
    pop.quit()
    print(f"read      {messages} message, {size} bytes, by POP3 from {out.name}, port {out.ports['pop3s']}")
    if subject != "Subject: Welcome" or messages != 1:
        raise RuntimeError("the message that was acknowledged cannot be read")


def _explain(fleet: Fleet) -> None:
    address, password = next(iter(fleet.accounts().items()))
    for pod in fleet.pods:
        print(f"\n{pod.name}, process {pod.pid}, log {pod.log}")
        print("  " + "  ".join(f"{name} {port}" for name, port in pod.ports.items()))
        print(f"  metrics   http://127.0.0.1:{pod.ports['web']}/metrics   ready http://127.0.0.1:{pod.ports['web']}/readyz")
    ports = fleet.pods[0].ports
    print("\naccounts")
    for name, secret in fleet.accounts().items():
        print(f"  {name}  {secret}")
    print(
        f"""
Thunderbird: server localhost, user name {address}
  incoming  IMAP  port {ports["imaps"]}  SSL/TLS   normal password
  outgoing  SMTP  port {ports["submissions"]}  SSL/TLS   normal password
  (import {fleet.ca.absolute()} as an authority)

mutt:
  mutt -n -F /dev/null -e 'set ssl_ca_certificates_file="{fleet.ca.absolute()}" imap_pass="{password}"' \\
       -f 'imaps://{address.replace("@", "%40")}@localhost:{ports["imaps"]}/INBOX'

Everything is in {fleet.directory.absolute()}. Ctrl-C stops it.""",
        flush=True,
    )


def _announce(fleet: Fleet) -> None:
    """`endpoints.json`, last and at once: whoever sees it can use everything that it names."""
    fresh = fleet.directory / "endpoints.json.new"
    fresh.write_text(json.dumps(fleet.endpoints(), indent=1))
    fresh.chmod(0o600)
    fresh.replace(fleet.directory / "endpoints.json")


def _check(fleet: Fleet) -> int:
    victim, survivor = fleet.pods[0], fleet.pods[1]
    accounts = fleet.accounts()
    addresses = list(accounts)[:2]
    ledger, sent = Ledger(), threading.Semaphore(0)
    # The receivers of the burst, on whichever pod is there.
    ports = [victim.ports["smtp"], survivor.ports["smtp"]]
    senders = [
        threading.Thread(target=send, args=(ledger, ports, range(first, BURST, SENDERS), str(victim.pid), addresses, sent.release))
        for first in range(SENDERS)
    ]
    print(f"sending {BURST} messages, {SENDERS} at a time, and killing {victim.name} (SIGKILL) after {KILL_AFTER} …", flush=True)
    for sender in senders:
        sender.start()
    for _ in range(KILL_AFTER):
        sent.acquire()
    victim.kill()
    for sender in senders:
        sender.join()
    result = _settled(fleet, ledger, accounts, addresses)
    print(f"{result} killed={victim.name} refused={len(ledger.failed - ledger.ok)}", flush=True)
    return 0 if result.good and result.acknowledged == BURST else 1


def _settled(fleet: Fleet, ledger: Ledger, accounts: dict[str, str], addresses: list[str]) -> Count:
    """Counts until nothing is missing: what the dead pod had accepted for several is delivered by the other one."""
    deadline = time.monotonic() + HEAL_S
    while True:
        result = count(ledger, fleet.pods[1].ports["imaps"], accounts, addresses, _tls(fleet))
        if not result.lost or time.monotonic() > deadline:
            return result
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())

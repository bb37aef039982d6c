"""A burst of mail with a ledger that is kept outside the system: what was acknowledged, refused, or never answered."""

from __future__ import annotations

import contextlib
import email
import hashlib
import imaplib
import smtplib
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage

SMTP_TIMEOUT_S = 30


@dataclass
class Ledger:
    """Outcomes by Message-ID. A message may be tried more than once, with one id."""

    hashes: dict[str, str] = field(default_factory=dict)
    recipients: dict[str, Sequence[str]] = field(default_factory=dict)
    ok: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)  # an attempt was never answered: it may be stored once more
    failed: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Count:
    """What became of a burst."""

    acknowledged: int
    stored: int
    lost: int
    corrupt: int
    phantom: int
    duplicates: int
    unknown: int

    @property
    def good(self) -> bool:
        """Nothing is missing, wrong, or there twice without a reason."""
        return not (self.lost or self.corrupt or self.phantom or self.duplicates)

    def __str__(self) -> str:
        return (
            f"lost={self.lost} acknowledged={self.acknowledged} stored={self.stored} corrupt={self.corrupt} phantom={self.phantom} "
            f"duplicates={self.duplicates} unanswered={self.unknown}"
        )


def message(number: int, run: str, recipients: Sequence[str]) -> tuple[str, bytes]:
    """A message and its id; sizes vary from 1 KB to 60 KB."""
    made = EmailMessage()
    made["From"] = "sender@example.info"
    made["To"] = ", ".join(recipients)
    made["Subject"] = f"Message {number} of the burst"
    made["Date"] = "Mon, 02 Mar 2026 10:00:00 +0000"
    made["Message-ID"] = f"<{number}.{run}@example.info>"
    made.set_content(f"This is message {number}.\n" + "All work and no play.\n" * (40 + number * 7919 % 2600))
    return made["Message-ID"], made.as_bytes(policy=made.policy.clone(linesep="\r\n"))


def body_hash(raw: bytes) -> str:
    """Of what comes after the header: servers add header lines and change nothing else."""
    return hashlib.sha256(raw.partition(b"\r\n\r\n")[2]).hexdigest()


def send(
    ledger: Ledger, ports: Sequence[int], numbers: Sequence[int], run: str, addresses: Sequence[str], done: Callable[[], None]
) -> None:
    """Send messages one after the other, each through the first port that takes it, as a client behind a load balancer does."""
    for number in numbers:
        # Every fifth has two recipients and takes the other way, through the pod's transit log.
        recipients = addresses[:2] if number % 5 == 0 else [addresses[number % 2]]
        name, raw = message(number, run, recipients)
        with ledger.lock:
            ledger.hashes[name] = body_hash(raw)
            ledger.recipients[name] = recipients
        for port in ports:
            outcome = _attempt(port, recipients, raw)
            with ledger.lock:
                getattr(ledger, outcome).add(name)
            if outcome == "ok":
                break
        done()


def _attempt(port: int, recipients: Sequence[str], raw: bytes) -> str:
    sending = False
    try:
        client = smtplib.SMTP("127.0.0.1", port, timeout=SMTP_TIMEOUT_S, local_hostname="client.example.info")
    except (smtplib.SMTPException, OSError):
        return "failed"
    try:
        client.ehlo()
        client.mail("sender@example.info", [f"SIZE={len(raw)}"])
        for recipient in recipients:
            code, _ = client.rcpt(recipient)
            if code != 250:
                return "failed"
        sending = True
        code, _ = client.data(raw)
        # From here on the outcome is known, whatever becomes of the connection.
        return "ok" if code == 250 else "failed"
    except smtplib.SMTPResponseException:
        return "failed"
    except (smtplib.SMTPException, OSError):
        return "unknown" if sending else "failed"
    finally:
        with contextlib.suppress(smtplib.SMTPException, OSError):
            client.quit()
        client.close()


def count(ledger: Ledger, port: int, accounts: dict[str, str], addresses: Sequence[str], tls: ssl.SSLContext) -> Count:
    """Read the mailboxes through one pod and compare."""
    seen: Counter[tuple[str, str]] = Counter()
    corrupt = 0
    for address in addresses:
        with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=tls, timeout=60) as client:
            client.login(address, accounts[address])
            client.select("INBOX", readonly=True)
            _, rows = client.fetch("1:*", "(BODY.PEEK[])")
            for row in rows:
                if isinstance(row, tuple):
                    name = str(email.message_from_bytes(row[1])["Message-ID"])
                    if not name.endswith("@example.info>"):
                        continue
                    seen[name, address] += 1
                    corrupt += name in ledger.hashes and ledger.hashes[name] != body_hash(row[1])
    wanted = {(name, address) for name in ledger.ok for address in ledger.recipients[name]}
    possible = {(name, address) for name in ledger.ok | ledger.unknown for address in ledger.recipients[name]}
    return Count(
        acknowledged=len(ledger.ok),
        stored=sum(seen.values()),
        lost=len(wanted - set(seen)),
        corrupt=corrupt,
        phantom=len(set(seen) - possible),
        duplicates=sum(times - 1 for (name, _), times in seen.items() if times > 1 and name not in ledger.unknown),
        unknown=len(ledger.unknown),
    )

"""What clients know of their messages, kept outside the system: ok / fail / unknown, and the count after healing.

**lost** = ok and not stored, **corrupt** = stored with other bytes, **phantom** = stored and never sent,
**duplicates** = stored more than once.
"""

from __future__ import annotations

import imaplib
import re
import smtplib
import ssl
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_ID = re.compile(rb"^Message-ID: <(ledger-[0-9]+)@example\.org>\r\n", re.MULTILINE)


def compose(number: int, size: int = 2000) -> bytes:
    """A message with a unique id, CRLF line ends, about `size` bytes."""
    head = (
        f"From: Carol <carol@example.org>\r\nTo: Bob <bob@example.com>\r\nSubject: ledger {number}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <ledger-{number}@example.org>\r\n\r\n"
    )
    lines = [f"line {line} of message {number} {number * 7919 + line}\r\n" for line in range(max(1, (size - len(head)) // 40))]
    return (head + "".join(lines)).encode()


@dataclass
class Ledger:
    """Thread-safe. `sent` holds every message that a client began to send."""

    sent: dict[str, bytes] = field(default_factory=dict)
    outcome: dict[str, str] = field(default_factory=dict)
    replies: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(
        self, port: int, number: int, recipients: Iterable[str] = ("bob@example.com",), size: int = 2000, timeout_s: float = 60
    ) -> str:
        """Send one message to port 25 and enter what the client knows afterwards: "ok", "fail" or "unknown"."""
        name, body = f"ledger-{number}", compose(number, size)
        with self._lock:
            self.sent[name] = body
            self.outcome[name] = "unknown"
        outcome = "fail"  # until the message's last byte may have left
        try:
            with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org", timeout=timeout_s) as smtp:
                smtp.ehlo()
                self._expect(smtp.mail("carol@example.org"))
                for recipient in recipients:
                    self._expect(smtp.rcpt(recipient))
                outcome = "unknown"
                code, text = smtp.data(body)
                outcome = "ok" if code == 250 else "fail"
                with self._lock:
                    self.replies[f"{code} {text.decode(errors='replace').split()[0]}"] += 1
        except smtplib.SMTPResponseException as error:
            outcome = "fail"
            with self._lock:
                words = error.smtp_error if isinstance(error.smtp_error, str) else error.smtp_error.decode(errors="replace")
                self.replies[f"{error.smtp_code} {words.split()[0]}"] += 1
        except (OSError, smtplib.SMTPException) as error:
            with self._lock:
                self.replies[type(error).__name__] += 1
        with self._lock:
            self.outcome[name] = outcome
        return outcome

    @staticmethod
    def _expect(answer: tuple[int, bytes]) -> None:
        if answer[0] >= 400:
            raise smtplib.SMTPResponseException(*answer)

    def burst(self, ports: list[int], numbers: range, *, clients: int = 8, **options: object) -> None:
        """Send `numbers` by several clients at once, over `ports` in turn; returns when all are answered."""
        left = iter(numbers)
        take = threading.Lock()

        def client() -> None:
            while True:
                with take:
                    number = next(left, None)
                if number is None:
                    return
                self.send(ports[number % len(ports)], number, **options)  # type: ignore[arg-type] # passed through

        threads = [threading.Thread(target=client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def audit(self, stored: list[bytes]) -> dict[str, int]:
        """The count, for one recipient's mailbox: `stored` are the whole messages in it."""
        found: Counter[str] = Counter()
        result = {"ok": 0, "fail": 0, "unknown": 0, "lost": 0, "corrupt": 0, "phantom": 0, "duplicates": 0}
        for outcome in self.outcome.values():
            result[outcome] += 1
        for message in stored:
            match = _ID.search(message)
            name = match[1].decode() if match else ""
            if name not in self.sent:
                result["phantom"] += 1
                continue
            found[name] += 1
            if not message.endswith(self.sent[name]):
                result["corrupt"] += 1
        for name, outcome in self.outcome.items():
            result["lost"] += outcome == "ok" and not found[name]
            result["duplicates"] += max(0, found[name] - 1)
        return result

    def refused_yet_stored(self, stored: list[bytes]) -> int:
        """How many messages were answered with 4xx or 5xx and are there all the same: the sender's retry would double them."""
        names = {match[1].decode() for message in stored if (match := _ID.search(message))}
        return sum(outcome == "fail" and name in names for name, outcome in self.outcome.items())


def read_all(port: int, user: str, password: str, context: ssl.SSLContext, folder: str = "INBOX") -> list[bytes]:
    """Every message of a folder, by IMAP over TLS."""
    with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context, timeout=60) as imap:
        imap.login(user, password)
        count = int(imap.select(folder, readonly=True)[1][0] or b"0")
        if not count:
            return []
        answer = imap.fetch("1:*", "(BODY.PEEK[])")[1]
    return [part[1] for part in answer if isinstance(part, tuple)]

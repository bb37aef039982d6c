"""What is known about a message beside its bytes, and the message on its way through the steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mailpod.contract import MailboxConfig
from mailpod.directory.directory import Match
from mailpod.message.headers import Field, unfold
from mailpod.ports import Entropy
from mailpod.store.facade import Account


class Client(NamedTuple):
    """Who brought the message, for trace headers and logs."""

    address: str  # IP address
    helo: str  # as the client called itself; host name characters only
    protocol: str  # RFC 3848, RFC 6531: "ESMTP", "ESMTPSA", "UTF8SMTPS", …
    tls: str  # "TLSv1.3 TLS_AES_256_GCM_SHA384", "" without TLS


@dataclass(slots=True)
class LocalRecipient:
    """One accepted recipient: whose mailbox, which folder."""

    address: str  # as accepted at RCPT: normalised, with its tag
    mailbox: MailboxConfig
    max_message_bytes: int  # of its domain
    match: Match
    tag: str = ""  # names a folder if one of that name exists
    account: Account | None = None  # None: decided without opening it; opened at delivery


def folder_for(account: Account, tag: str) -> tuple[int, str]:
    """Id and name of the folder that a tag means: of that name, in any case, if it exists; else INBOX."""
    view = account.view
    if tag:
        folder = view.folder(tag)
        if folder is not None:
            return folder.id, folder.name
        wanted = tag.casefold()
        for folder in view.folders():
            if folder.name.casefold() == wanted:
                return folder.id, folder.name
    inbox = view.folder("INBOX")
    assert inbox is not None, "every account has an INBOX"
    return inbox.id, "INBOX"


@dataclass(slots=True)
class Envelope:
    """One SMTP transaction."""

    session_id: str
    id: str  # of this message: in the Received header, the reply and every log line
    protocol: str  # telemetry label: smtp, submission, submissions
    client: Client
    reverse_path: str  # normalised address, "" for the null sender
    login: MailboxConfig | None = None  # whose message this is, on submission
    binary: bool = False  # BODY=BINARYMIME: lines mean nothing below the header
    smtputf8: bool = False
    recipients: list[LocalRecipient] = field(default_factory=list)


@dataclass(slots=True)
class Job:
    """A message on its way through the steps, which may refuse it or change it. Its bytes are never changed in place."""

    envelope: Envelope
    raw: bytes  # the whole message as it came, CRLF line ends
    entropy: Entropy
    now: float  # seconds since 1970-01-01 UTC
    date: str  # the same as RFC 5322 date-time
    hostname: str
    fields: list[Field] = field(default_factory=list)  # of the header as it came; set by the first step
    message_id: str = ""  # of the header, for the log
    removed: list[Field] = field(default_factory=list)  # to be left out
    added: list[bytes] = field(default_factory=list)  # header lines to put on top, with CRLF

    def buffers(self) -> list[bytes]:
        """The message as it is to be stored, in pieces, without copying the body."""
        pieces = [*self.added]
        if not self.fields and not self.raw.startswith(b"\r\n"):
            pieces.append(b"\r\n")  # no header at all: what there is must not become part of ours
        at = 0
        for dropped in sorted(set(self.removed), key=lambda one: one.start):
            if dropped.start > at:
                pieces.append(self.raw[at : dropped.start])
            at = dropped.end
        pieces.append(self.raw[at:] if at else self.raw)
        return pieces

    def named(self, name: bytes) -> list[Field]:
        """The header's fields of a name (lower case), in order."""
        return [one for one in self.fields if one.name == name]

    def value(self, one: Field) -> bytes:
        """A field's value, unfolded."""
        return unfold(self.raw[one.value_start : one.end])

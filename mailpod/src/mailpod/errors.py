"""The error tree: few types, each knowing the answer that it gives on each protocol.

A refusal has one named `Reason`; the same name appears in the SMTP reply's log line, the metric label and the message trace.
"""

from __future__ import annotations

from typing import NamedTuple


class Reason(NamedTuple):
    """Why something was refused, and how each protocol says so."""

    name: str  # stable, kebab-case: the log field, the metric label
    smtp_code: int
    smtp_enhanced: str  # RFC 3463 / RFC 5248
    imap_status: str  # NO or BAD
    imap_code: str  # response code without brackets, "" for none (RFC 9051 §7.1, RFC 5530)
    pop3_code: str  # response code without brackets, "" for none (RFC 2449 §8, RFC 3206)
    text: str  # one sentence for a person, ASCII


class MailError(Exception):
    """The root. `reason` names it; `detail` is for the log and never carries secrets or message text."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.name}: {detail or reason.text}")
        self.reason = reason
        self.detail = detail


class Refused(MailError):
    """The request was understood and is not done, for good or until something changes; nothing was changed."""


class StoreUnavailable(MailError):
    """The bucket gave no clear answer: what was asked may have happened, or may still happen."""

    def __init__(self, detail: str = "", reason: Reason | None = None) -> None:
        super().__init__(reason or STORE_UNAVAILABLE, detail)


class InDoubt(StoreUnavailable):
    """A commit was not answered for too long. It may land later; the client is told to try again (4xx, NO [UNAVAILABLE])."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail, IN_DOUBT)


class ObjectNotFound(Exception):
    """The store answered 404 for a key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class Corrupt(MailError):
    """A checksum, a chain or a replayed outcome contradicts itself: the account is quarantined, never skipped."""

    def __init__(self, detail: str) -> None:
        super().__init__(QUARANTINED, detail)


# The reasons that more than one package gives. A package's own stand beside its code.
STORE_UNAVAILABLE = Reason(
    "store-unavailable", 451, "4.3.0", "NO", "UNAVAILABLE", "SYS/TEMP", "Mail storage does not answer; try again later"
)
IN_DOUBT = Reason("store-in-doubt", 451, "4.3.0", "NO", "UNAVAILABLE", "SYS/TEMP", "Mail storage did not confirm; try again later")
CONDITIONAL_WRITES_REFUSED = Reason(
    "conditional-writes-refused",
    451,
    "4.3.0",
    "NO",
    "UNAVAILABLE",
    "SYS/TEMP",
    "Mail storage refuses conditional writes; the administrator has to act",
)
QUARANTINED = Reason(
    "account-quarantined",
    451,
    "4.3.0",
    "NO",
    "SERVERBUG",
    "SYS/PERM",
    "The mailbox's data does not verify; the administrator has to act",
)
NEWER_FORMAT = Reason(
    "newer-format",
    451,
    "4.3.0",
    "NO",
    "UNAVAILABLE",
    "SYS/TEMP",
    "The mailbox was written by a newer version; try again later",
)
ACCOUNT_CLOSED = Reason("account-closed", 550, "5.2.1", "NO", "CONTACTADMIN", "SYS/PERM", "The mailbox has been erased")
OVER_QUOTA = Reason("over-quota", 452, "4.2.2", "NO", "OVERQUOTA", "SYS/PERM", "The mailbox is full")
SHUTTING_DOWN = Reason("shutting-down", 421, "4.3.2", "NO", "UNAVAILABLE", "SYS/TEMP", "The server is shutting down; connect again")

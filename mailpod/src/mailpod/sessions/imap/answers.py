"""How a command ends: the tagged answer, and the reasons that belong to IMAP alone."""

from __future__ import annotations

from typing import NamedTuple

from mailpod.errors import Reason


class Answer(NamedTuple):
    """The tagged status response (RFC 9051 §7.1)."""

    status: str  # OK, NO, BAD
    text: str
    code: str = ""  # response code without brackets
    reason: str = ""  # name of the refusal, for log and metrics


def ok(text: str, code: str = "") -> Answer:
    """Done."""
    return Answer("OK", text, code)


def no(text: str, code: str = "", reason: str = "refused") -> Answer:
    """Understood and not done."""
    return Answer("NO", text, code, reason)


def bad(text: str, code: str = "", reason: str = "bad-command") -> Answer:
    """Not understood, or not possible at this point."""
    return Answer("BAD", text, code, reason)


def refused(reason: Reason) -> Answer:
    """The answer that a reason gives on IMAP."""
    return Answer(reason.imap_status, reason.text, reason.imap_code, reason.name)


NO_SUCH_FOLDER = Reason("no-such-folder", 550, "5.1.1", "NO", "NONEXISTENT", "", "There is no such folder")  # RFC 5530
TRY_CREATE = Reason("no-such-folder", 550, "5.1.1", "NO", "TRYCREATE", "", "There is no such folder; create it first")  # RFC 9051 §7.1
EXPUNGED = Reason("expunged", 550, "5.1.1", "NO", "EXPUNGEISSUED", "", "Some of these messages have been expunged")  # RFC 5530
SERVER_BUG = Reason("internal-error", 451, "4.3.0", "NO", "SERVERBUG", "SYS/TEMP", "Internal error; it has been logged")
NO_SUCH_MESSAGE = Reason("no-such-message", 500, "5.5.2", "BAD", "", "", "There is no message of that number")
READ_ONLY = Reason("read-only", 550, "5.7.1", "NO", "NOPERM", "", "The folder was opened with EXAMINE")
TOO_BIG = Reason("message-too-big", 552, "5.3.4", "NO", "TOOBIG", "", "The message is larger than this server takes")  # RFC 7889 §4
NUL_IN_MESSAGE = Reason(
    "nul-in-message", 554, "5.6.0", "NO", "UNKNOWN-CTE", "", "The message holds NUL; send it as a binary literal"
)  # RFC 3516 §4.4
SEARCH_LIMIT = Reason("search-limit", 451, "4.3.0", "NO", "LIMIT", "", "The search reads too much; make it narrower")
DECODE_LIMIT = Reason("decode-limit", 451, "4.3.0", "NO", "LIMIT", "", "The part is too large to be decoded")
UNKNOWN_CTE = Reason("unknown-cte", 554, "5.6.0", "NO", "UNKNOWN-CTE", "", "The part's transfer encoding can't be decoded")  # RFC 3516 §4.3
QUOTA_BY_ADMIN = Reason("quota-by-admin", 550, "5.7.1", "NO", "NOPERM", "", "Quotas are set by the administrator")
NO_SUCH_ROOT = Reason("no-such-quota-root", 550, "5.1.1", "NO", "NONEXISTENT", "", "There is no such quota root")
DISABLED = Reason("mailbox-disabled", 550, "5.7.1", "NO", "", "", "The mailbox was changed by its administrator; log in again")
TOO_MANY_ERRORS = Reason("too-many-errors", 421, "4.7.0", "BAD", "", "", "Too many bad commands")
FOLDER_DELETED = Reason("selected-folder-deleted", 550, "5.1.1", "NO", "NONEXISTENT", "", "The selected folder was deleted")

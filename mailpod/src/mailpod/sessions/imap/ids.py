"""Object identifiers (RFC 8474): short, of letters and digits, unique within an account, never reused there."""

from __future__ import annotations

from mailpod.store.facade import FolderView


def mailbox_id(folder: FolderView) -> str:
    """MAILBOXID: the same under any name that the folder gets."""
    return f"F{folder.id:x}"


def email_id(number: int) -> str:
    """EMAILID: the same for all copies of a message in the account."""
    return f"M{number:x}"


def email_number(object_id: str) -> int | None:
    """The number in an EMAILID that a client sent back; None when no message can have it."""
    try:
        number = int(object_id[1:], 16)
    except ValueError:
        return None
    return number if email_id(number) == object_id and number < 1 << 64 else None

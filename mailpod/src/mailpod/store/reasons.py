"""The store's own named refusals (see `errors.Reason`)."""

from __future__ import annotations

from typing import Final

from mailpod.errors import Reason

NO_SUCH_FOLDER: Final = Reason("no-such-folder", 450, "4.2.0", "NO", "NONEXISTENT", "", "There is no such mailbox")
FOLDER_EXISTS: Final = Reason("folder-exists", 450, "4.2.0", "NO", "ALREADYEXISTS", "", "A mailbox of that name exists")
BAD_FOLDER_NAME: Final = Reason("bad-folder-name", 450, "4.2.0", "NO", "CANNOT", "", "That is not a possible mailbox name")
FOLDER_HAS_CHILDREN: Final = Reason("folder-has-children", 450, "4.2.0", "NO", "HASCHILDREN", "", "The mailbox has mailboxes below it")
INBOX_STAYS: Final = Reason("inbox", 450, "4.2.0", "NO", "CANNOT", "", "INBOX cannot be deleted")
SPECIAL_USE_TAKEN: Final = Reason("special-use-taken", 450, "4.2.0", "NO", "USEATTR", "", "Another mailbox has that special use")
LIMIT: Final = Reason("limit", 452, "4.3.1", "NO", "LIMIT", "SYS/PERM", "That is more than the server allows")
EXPUNGED: Final = Reason("expunged", 450, "4.2.0", "NO", "EXPUNGEISSUED", "SYS/PERM", "The message was expunged some time ago")
BEYOND_RETENTION: Final = Reason("beyond-retention", 450, "4.2.0", "NO", "CANNOT", "", "That moment is no longer kept")
HOLD_LOST: Final = Reason("hold-lost", 451, "4.3.0", "NO", "UNAVAILABLE", "SYS/TEMP", "Another pod has taken over; try again")
MOVED: Final = Reason("moved-on", 451, "4.3.0", "NO", "INUSE", "SYS/TEMP", "The mailbox changed meanwhile; try again")
BIG_BELOW_WATERMARK: Final = Reason("upload-expired", 451, "4.3.0", "NO", "UNAVAILABLE", "SYS/TEMP", "The upload took too long; try again")
QUEUE_FULL: Final = Reason("store-queue-full", 451, "4.3.0", "NO", "UNAVAILABLE", "SYS/TEMP", "Mail storage is too slow; try again later")
NOT_AN_ACCOUNT: Final = Reason("not-an-account", 550, "5.1.3", "NO", "NONEXISTENT", "SYS/PERM", "That is not a possible mailbox address")

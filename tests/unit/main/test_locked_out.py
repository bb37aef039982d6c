"""Whose sessions a reload ends."""

import msgspec
import pytest

from mailpod.contract import Credential, MailboxConfig, MailboxState, Protocol
from mailpod.main.pod import locked_out

OWN, APP = Credential("", "$sha256$c2FsdA$b25l"), Credential("phone", "$sha256$c2FsdA$dHdv")
BOX = MailboxConfig(address="alice@example.com", quota_bytes=1, protocols=tuple(Protocol), credentials=(OWN, APP))


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({}, False),
        ({"quota_bytes": 2, "display_name": "Alice"}, False),
        ({"credentials": (APP, OWN, Credential("laptop", "$sha256$c2FsdA$ZHJlaQ"))}, False),
        ({"credentials": (OWN,)}, True),
        ({"credentials": (Credential("", "$sha256$c2FsdA$bmV1"), APP)}, True),
        ({"state": MailboxState.LOCKED}, True),
        ({"state": MailboxState.SUSPENDED}, True),
    ],
    ids=["nothing", "harmless", "another password more", "app password gone", "password changed", "locked", "suspended"],
)
def test_who_is_logged_out(changes, ended):
    """A thief who knew the old password would stay logged in; or everybody would be thrown out by a larger quota."""
    assert locked_out([BOX], [msgspec.structs.replace(BOX, **changes)]) == ({BOX.address} if ended else set())


def test_removed_mailbox_is_logged_out():
    """Its owner would go on reading."""
    assert locked_out([BOX], []) == {BOX.address}

"""What the command line calls."""

# A folder that is not there fails the test by itself.
# mypy: disable-error-code="union-attr"

from __future__ import annotations

import numpy as np
import pytest

from mailpod.errors import Refused, StoreUnavailable
from mailpod.store import MailStore, StoreOptions, admin
from mailpod.store.types import NewMessage
from tests.support.clocks import ManualClock
from tests.support.memory_objects import MemoryObjects
from tests.support.stores import make_store, message


async def made() -> tuple[MailStore, MemoryObjects, ManualClock]:
    clock = ManualClock()
    objects = MemoryObjects(clock)
    store = make_store(objects, clock, options=StoreOptions(prefix="some/where"))
    for person in ("bob@example.com", "alice@example.com", '"a/../b"@example.com', "zoe@example.org"):
        account = await store.open(person)
        inbox = account.view.folder("INBOX").id
        await account.append(inbox, [NewMessage(message(f"for {person[:3]}"), ("\\Seen", "work"), 1_700_000_000)] * 2)
    await account.expunge(inbox, np.array([1], dtype=np.uint32), deleted_only=False)
    return store, objects, clock


async def test_list_and_show():
    """An administrator finds all mailboxes, also oddly named ones, and what is in them."""
    store, objects, _ = await made()
    found = [address async for address in admin.list_accounts(store)]
    assert sorted(found) == sorted(['"a/../b"@example.com', "alice@example.com", "bob@example.com", "zoe@example.org"])
    info = await admin.show(store, "zoe@example.org")
    assert (info.head, info.usage.messages, info.closed, info.keywords) == (3, 1, False, ("work",))
    assert [folder.messages for folder in info.folders if folder.name == "INBOX"] == [1]
    assert all(key.startswith("some/where/v1/") for key in objects.objects)
    before = len(objects.objects)
    for action in (admin.show, admin.reclaim, admin.erase, admin.verify):
        with pytest.raises(Refused, match="no-such-account"):
            await action(store, "nobody@example.com")
    assert len(objects.objects) == before


async def test_log():
    """Every entry can be read by a person."""
    store, _, _ = await made()
    rows = [row async for row in admin.log_entries(store, "zoe@example.org")]
    assert [[operation["operation"] for operation in row.operations] for row in rows] == [
        ["Created"],
        ["KeywordAdded", "Appended"],
        ["Removed"],
    ]
    assert rows[2].operations[0]["uids"] == "1"
    assert rows[1].messages == 2
    assert admin.ranges(np.array([1, 2, 3, 7, 9, 10], dtype=np.uint32)) == "1:3,7,9:10"


async def test_export_and_import():
    """Everything comes out with flags and dates, and goes into another mailbox the same."""
    store, _, _ = await made()
    out = [one async for one in admin.export_messages(store, "bob@example.com")]
    assert [(one.folder, one.uid, one.flags, one.internaldate) for one in out] == [
        ("INBOX", 1, ("\\Seen", "work"), 1_700_000_000),
        ("INBOX", 2, ("\\Seen", "work"), 1_700_000_000),
    ]
    importing = admin.Import(store, "new@example.com", "bob.mbox")
    assert await importing.start() == 0
    for one in out:
        await importing.add("Old/" + one.folder, NewMessage(one.raw, one.flags, one.internaldate))
    assert await importing.finish() == 2
    again = [one async for one in admin.export_messages(store, "new@example.com")]
    assert [(one.flags, one.internaldate, one.raw) for one in again] == [(one.flags, one.internaldate, one.raw) for one in out]


async def test_an_import_that_was_cut_off_goes_on_exactly_there():
    """Killed in the middle: neither a message twice nor one missing."""
    store, objects, clock = await made()
    messages = [message(f"m{number}") for number in range(2500)]
    first = admin.Import(store, "bob@example.com", "big.mbox")
    await first.start()
    real, allowed = objects.create, [2]

    async def create(key: str, data: object) -> object:
        if not allowed[0]:
            raise StoreUnavailable("gone")
        allowed[0] -= 1
        return await real(key, data)  # type: ignore[arg-type]

    objects.create = create  # type: ignore[method-assign, assignment]

    async def all_of_them() -> None:
        for raw in messages:
            await first.add("Import", NewMessage(raw))

    with pytest.raises(StoreUnavailable):
        await all_of_them()
    objects.create = real  # type: ignore[method-assign]
    second = admin.Import(make_store(objects, clock, options=StoreOptions(prefix="some/where")), "bob@example.com", "big.mbox")
    skip = await second.start()
    assert skip == 1000
    for raw in messages[skip:]:
        await second.add("Import", NewMessage(raw))
    assert await second.finish() == 2500
    out = [one.raw async for one in admin.export_messages(store, "bob@example.com") if one.folder == "Import"]
    assert out == messages


async def test_verify_says_what_and_where():
    """A clean account has no findings; damage is named by its key, and derived objects are told apart."""
    store, objects, _ = await made()
    report = await admin.verify(store, "bob@example.com")
    assert (report.head, report.entries, report.bodies, report.findings) == (2, 2, 2, [])
    account = await store.open("bob@example.com")
    await account.parts.snapshots.write()
    snap = objects.keys("bob/snap/")[0]
    objects.objects[snap] = objects.objects[snap]._replace(data=b"x" + objects.objects[snap].data[1:])
    report = await admin.verify(store, "bob@example.com")
    assert [(one.where, one.loses_mail) for one in report.findings] == [(snap, False)]
    key = account.log.keys.entry(2)
    objects.objects[key] = objects.objects[key]._replace(data=objects.objects[key].data[:-1])
    report = await admin.verify(store, "bob@example.com")
    assert {one.where for one in report.findings} >= {key}


async def test_erase_restore_reclaim():
    """The rest of the commands, end to end."""
    store, _, clock = await made()
    moment = clock.now()
    clock.advance(60)
    account = await store.open("bob@example.com")
    await account.expunge(account.view.folder("INBOX").id, deleted_only=False)
    assert (await admin.restore(store, "bob@example.com", moment, dry_run=True)).messages == {"INBOX": 2}
    assert account.view.usage.messages == 0
    await admin.restore(store, "bob@example.com", moment, "Back")
    assert account.view.folder("Back").count == 2
    assert await admin.reclaim(store, "bob@example.com") is None
    assert (await admin.erase(store, "bob@example.com")).entries > 3
    assert (await admin.show(store, "bob@example.com")).closed
    assert (await admin.purge(store, "bob@example.com")).entries == 0
    with pytest.raises(Refused, match="no-such-account"):
        await admin.restore(store, "bob@example.com", moment)

"""Mail in files: what another server wrote comes in as it was, and what goes out comes back in."""

from __future__ import annotations

import contextlib
import mailbox
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.adapters.mailfiles import FileMessage, MaildirWriter, MboxWriter, maildir_folder_name, read_maildir, read_mbox

FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")
RAW = b"Subject: one\r\nFrom: alice@example.com\r\n\r\nFrom here on\r\n>From quoted\r\n\r\nend\r\n"


def test_an_mbox_comes_back_as_it_was(tmp_path: Path):
    """A line that begins with "From " would be changed, or would split a message in two."""
    writer = MboxWriter(tmp_path / "box")
    writer.add(RAW, FLAGS, 1_700_000_000)
    writer.add(RAW.replace(b"one", b"two"), (), 1_700_000_001)
    writer.close()
    first, second = read_mbox(tmp_path / "box", "Archive")
    assert (first.folder, first.raw, set(first.flags), first.internaldate) == ("Archive", RAW, set(FLAGS), 1_700_000_000)
    assert (second.raw, second.flags) == (RAW.replace(b"one", b"two"), ())
    assert first.key < second.key


def test_pythons_own_reader_understands_our_mbox(tmp_path: Path):
    """An administrator who leaves could not read the export elsewhere."""
    writer = MboxWriter(tmp_path / "box")
    writer.add(RAW, ("\\Seen", "\\Flagged"), 1_700_000_000)
    writer.close()
    with contextlib.closing(mailbox.mbox(tmp_path / "box", create=False)) as box:
        [message] = box
    assert message["Subject"] == "one"
    assert set(message.get_flags()) == {"R", "O", "F"}


def test_maildir_folders_flags_and_dates(tmp_path: Path):
    """Read mail would be unread after the move, and folders would be flat."""
    box = mailbox.Maildir(tmp_path / "mail", create=True)
    message = mailbox.MaildirMessage(RAW.replace(b"\r\n", b"\n"))
    message.set_flags("FS")
    message.set_subdir("cur")
    message.set_date(1_600_000_000)
    box.add(message)
    box.add_folder("Archive.2026").add(b"Subject: below\n\nx\n")
    inbox, below = read_maildir(tmp_path / "mail", "INBOX")
    assert (inbox.folder, inbox.raw, set(inbox.flags), inbox.internaldate) == ("INBOX", RAW, {"\\Seen", "\\Flagged"}, 1_600_000_000)
    assert (below.folder, below.raw) == ("Archive/2026", b"Subject: below\r\n\r\nx\r\n")


def test_writing_a_maildir_twice_changes_nothing(tmp_path: Path):
    """An export that was interrupted and begun again would hold everything twice."""
    for _ in range(2):
        MaildirWriter(tmp_path / maildir_folder_name("Archive/2026")).add("00000001", RAW, ("\\Seen",), 1_600_000_000)
    (tmp_path / "cur").mkdir()
    assert list(read_maildir(tmp_path, "INBOX")) == [FileMessage("Archive/2026", "00000001", RAW, ("\\Seen",), 1_600_000_000)]


def test_what_is_no_maildir_is_said_plainly(tmp_path: Path):
    """A typing error would look like an empty mailbox."""
    with pytest.raises(NotADirectoryError, match="no Maildir"):
        list(read_maildir(tmp_path, "INBOX"))
    with pytest.raises(FileNotFoundError):
        list(read_mbox(tmp_path / "absent", "INBOX"))


@settings(max_examples=100, deadline=None)
@given(
    body=st.lists(st.sampled_from([b"From x", b">From y", b">>From ", b"", b"text", b"From: a", b"\xff\x00", b"Status: R"]), max_size=8),
    flags=st.sets(st.sampled_from(FLAGS)),
)
def test_any_body_survives_an_mbox(tmp_path_factory: pytest.TempPathFactory, body: list[bytes], flags: set[str]):
    """Some message would come back with other text."""
    raw = b"Subject: x\r\n\r\n" + b"".join(line + b"\r\n" for line in body)
    path = tmp_path_factory.mktemp("mbox") / "box"
    writer = MboxWriter(path)
    writer.add(raw, sorted(flags), 1_700_000_000)
    writer.add(raw, sorted(flags), 1_700_000_000)
    writer.close()
    messages = list(read_mbox(path, "INBOX"))
    assert [message.raw for message in messages] == [raw, raw]
    assert set(messages[0].flags) == flags

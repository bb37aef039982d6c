"""Mail in files, for moving house: mbox (mboxrd) and Maildir (Maildir++ folders), read and written one message at a time.

Python's own `mailbox` finds the messages; what it leaves open (line ends, ">From ", flags, dates) is settled here.
"""

from __future__ import annotations

import calendar
import contextlib
import mailbox
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

_LF: Final = re.compile(rb"(?<!\r)\n")
_FROM_QUOTED: Final = re.compile(rb"^>(>*From )", re.MULTILINE)
_FROM_BARE: Final = re.compile(rb"^(>*From )", re.MULTILINE)
_STATUS: Final = re.compile(rb"^(?:X-)?Status: ([A-Z]*)\r?\n", re.MULTILINE | re.IGNORECASE)
# Letters of Maildir's info field and of mbox's Status and X-Status, with the IMAP flag that each stands for.
_MAILDIR_FLAGS: Final = {"S": "\\Seen", "R": "\\Answered", "F": "\\Flagged", "T": "\\Deleted", "D": "\\Draft"}
_STATUS_FLAGS: Final = {"R": "\\Seen", "A": "\\Answered", "F": "\\Flagged", "D": "\\Deleted", "T": "\\Draft"}


class FileMessage(NamedTuple):
    """One message of a file or directory."""

    folder: str  # "INBOX", "Archive/2026"
    key: str  # stable within the source, so that an interrupted import goes on behind it
    raw: bytes  # CRLF line ends
    flags: tuple[str, ...]
    internaldate: int | None  # seconds since 1970-01-01 UTC


def read_mbox(path: Path, folder: str) -> Iterator[FileMessage]:
    """The messages of an mbox file, in its order. Raises OSError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no mbox file")
    with contextlib.closing(mailbox.mbox(path, create=False)) as box:
        for number in box.iterkeys():
            data = box.get_bytes(number, from_=True)
            line, _, data = data.partition(b"\n")
            data = _FROM_QUOTED.sub(rb"\1", data)
            head, blank, body = _split(data)
            letters = b"".join(_STATUS.findall(head)).decode()
            head = _STATUS.sub(b"", head)
            flags = tuple(flag for letter, flag in _STATUS_FLAGS.items() if letter in letters)
            yield FileMessage(folder, f"{number:012d}", _LF.sub(b"\r\n", head + blank + body), flags, _from_line_date(line))


def read_maildir(path: Path, folder: str) -> Iterator[FileMessage]:
    """The messages of a Maildir and of its Maildir++ folders (`.Archive.2026` is Archive/2026), each in name order. Raises OSError."""
    if not (path / "cur").is_dir():
        raise NotADirectoryError(f"{path} is no Maildir: it has no cur/")
    yield from _maildir_folder(path, folder)
    for below in sorted(entry for entry in path.iterdir() if entry.name.startswith(".") and (entry / "cur").is_dir()):
        name = below.name[1:].replace(".", "/")
        yield from _maildir_folder(below, name if folder == "INBOX" else f"{folder}/{name}")


def _maildir_folder(path: Path, folder: str) -> Iterator[FileMessage]:
    files = [file for part in ("new", "cur") if (path / part).is_dir() for file in (path / part).iterdir() if file.is_file()]
    for file in sorted(files, key=lambda file: file.name.partition(":")[0]):
        name, _, info = file.name.partition(":")
        letters = info.removeprefix("2,")
        flags = tuple(flag for letter, flag in _MAILDIR_FLAGS.items() if letter in letters)
        yield FileMessage(folder, name, _LF.sub(b"\r\n", file.read_bytes()), flags, int(file.stat().st_mtime))


class MboxWriter:
    """Appends messages to one mbox file (mboxrd, LF line ends, flags in Status and X-Status)."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("ab")

    def add(self, raw: bytes, flags: Sequence[str], internaldate: int) -> None:
        """Append one message."""
        letters = {flag: letter for letter, flag in _STATUS_FLAGS.items()}
        held = [letters[flag] for flag in flags if flag in letters]
        status = "".join(letter for letter in held if letter == "R") + "O"
        extra = "".join(letter for letter in held if letter != "R")
        head, blank, body = _split(raw.replace(b"\r\n", b"\n"))
        head = _STATUS.sub(b"", head) + f"Status: {status}\n".encode() + (f"X-Status: {extra}\n".encode() if extra else b"")
        data = _FROM_BARE.sub(rb">\1", head + blank + body)
        stamp = time.strftime("%a %b %d %H:%M:%S %Y", time.gmtime(internaldate))
        self._file.write(f"From MAILER-DAEMON {stamp}\n".encode() + data + (b"\n" if data.endswith(b"\n") else b"\n\n"))

    def close(self) -> None:
        """Flush to the disk and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class MaildirWriter:
    """Writes messages into one Maildir, bytes as they are; writing one again under the same key changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        for part in ("tmp", "new", "cur"):
            (path / part).mkdir(parents=True, exist_ok=True)

    def add(self, key: str, raw: bytes, flags: Sequence[str], internaldate: int) -> None:
        """Write one message under a name made of `key`."""
        letters = "".join(sorted(letter for letter, flag in _MAILDIR_FLAGS.items() if flag in flags))
        part, target = self._path / "tmp" / key, self._path / "cur" / f"{key}:2,{letters}"
        part.write_bytes(raw)
        os.utime(part, (internaldate, internaldate))
        part.rename(target)


def maildir_folder_name(folder: str) -> str:
    """The Maildir++ directory of a folder below the Maildir's own; "" for INBOX."""
    return "" if folder == "INBOX" else "." + folder.replace(".", "_").replace("/", ".")


def _split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Header with its last line end, blank line, body."""
    match = re.search(rb"(?:\A|\n)(\r?\n)", data)
    if match is None:
        return data, b"", b""
    return data[: match.start(1)], match[1], data[match.end(1) :]


def _from_line_date(line: bytes) -> int | None:
    """The date at the end of a "From " line, as asctime(3) writes it, taken as UTC."""
    match = re.search(rb"([A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-3]?\d \d\d:\d\d:\d\d) (?:[A-Z+\-0-9]+ )?(\d{4})\s*\Z", line)
    if match is None:
        return None
    try:
        return calendar.timegm(time.strptime(f"{match[1].decode()} {match[2].decode()}", "%a %b %d %H:%M:%S %Y"))
    except ValueError:
        return None

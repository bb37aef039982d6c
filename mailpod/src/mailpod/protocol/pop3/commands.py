"""A line to a command with checked arguments."""

from __future__ import annotations

from typing import NamedTuple


class CommandError(Exception):
    """A refusal: `code` is a response code without brackets (RFC 2449 §8) or "", `text` a sentence in ASCII."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Command(NamedTuple):
    """Verb in upper case, and the rest of the line after one space."""

    verb: str
    argument: bytes


def parse(line: bytes) -> Command:
    """Split a line. Raises CommandError for what is no command."""
    verb, _, argument = line.partition(b" ")
    if not verb.isalnum() or not verb.isascii() or len(verb) > 16:  # STLS, UTF8; RFC 1939 §3: printable, 3 or 4 characters
        raise CommandError("Unknown command")
    # NUL, CR and other control characters stand in no argument.
    if any(byte < 32 or byte == 127 for byte in argument):
        raise CommandError("Control characters in command")
    return Command(verb.decode("ascii").upper(), argument)


def words(command: Command, least: int, most: int) -> list[bytes]:
    """The argument's words. Raises CommandError when there are too few or too many."""
    found = command.argument.split()
    if not least <= len(found) <= most:
        raise CommandError("Wrong number of arguments")
    return found


def number(word: bytes) -> int:
    """A decimal number of up to 10 digits. Raises CommandError."""
    if not word.isdigit() or len(word) > 10:
        raise CommandError("Not a number")
    return int(word)


def text(argument: bytes) -> str:
    """A user name or password as text (RFC 6856 §2.2: UTF-8). Raises CommandError."""
    if not argument:
        raise CommandError("Argument missing")
    try:
        return argument.decode()
    except UnicodeDecodeError:
        raise CommandError("Argument is not UTF-8") from None

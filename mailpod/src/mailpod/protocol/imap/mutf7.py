"""Mailbox names in modified UTF-7 (RFC 3501 §5.1.3), strictly: every name has one encoding, and only that one is read."""

from __future__ import annotations

import binascii
import re
import unicodedata

from mailpod.limits.imap import MAILBOX_BYTES_MAX

_DIRECT = re.compile(rb"[\x20-\x25\x27-\x7e]*")
_SHIFTED = re.compile(rb"&([A-Za-z0-9+,]*)-")
_NOT_DIRECT = re.compile(r"[^\x20-\x7e]+|&")


class BadName(ValueError):
    """Not a mailbox name: the text says why, for the client."""


def decode(raw: bytes) -> str:
    """Unicode of a name on the wire.

    Raises `BadName` for 8-bit bytes, controls, bad base64, needless or unfinished shifts, lone surrogates.
    """
    if b"&" not in raw:
        if _DIRECT.fullmatch(raw) is None:
            raise BadName("Mailbox name is not in modified UTF-7")
        return raw.decode("ascii")
    out: list[str] = []
    position = 0
    shifted_end = -1  # where the last base64 run ended: two in a row must have been one
    while position < len(raw):
        if raw[position] == 0x26:
            match = _SHIFTED.match(raw, position)
            if match is None:
                raise BadName("Mailbox name has an unfinished modified UTF-7 sequence")
            if match[1]:
                if shifted_end == position:
                    raise BadName("Mailbox name has a needless modified UTF-7 shift")
                out.append(_decode_run(match[1]))
                shifted_end = match.end()
            else:
                out.append("&")
            position = match.end()
        else:
            direct = _DIRECT.match(raw, position)
            if direct is None or direct.end() == position:
                raise BadName("Mailbox name is not in modified UTF-7")
            out.append(direct[0].decode("ascii"))
            position = direct.end()
    return "".join(out)


def _decode_run(run: bytes) -> str:
    base64 = run.replace(b",", b"/")
    base64 += b"=" * (-len(base64) % 4)
    try:
        text = binascii.a2b_base64(base64, strict_mode=True).decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError):
        raise BadName("Mailbox name has a bad modified UTF-7 sequence") from None
    if _encode_run(text) != run or any(" " <= char <= "~" for char in text):
        raise BadName("Mailbox name has a modified UTF-7 sequence that is not the shortest")
    return text


def _encode_run(text: str) -> bytes:
    return binascii.b2a_base64(text.encode("utf-16-be"), newline=False).rstrip(b"=").replace(b"/", b",")


def encode(name: str) -> bytes:
    """The wire form of a name. Lone surrogates, which no name has, raise UnicodeEncodeError."""
    if name.isascii() and name.isprintable() and "&" not in name:
        return name.encode("ascii")

    def shift(match: re.Match[str]) -> str:
        run = match[0]
        return "&-" if run == "&" else "&" + _encode_run(run).decode("ascii") + "-"

    return _NOT_DIRECT.sub(shift, name).encode("ascii")


def decode_mailbox(raw: bytes, utf8: bool) -> str:
    """A mailbox name or LIST pattern from the wire: NFC, bounded, without control characters (RFC 9051 §5.1). Raises `BadName`."""
    if len(raw) > MAILBOX_BYTES_MAX * 4:  # before it is normalized, which may take more than linear time
        raise BadName("Mailbox name is too long")
    if utf8:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise BadName("Mailbox name is not in UTF-8") from None
    else:
        name = decode(raw)
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    check_characters(name)
    return name


def check_characters(name: str) -> None:
    """Raises `BadName` for names that no client may make or ask for: controls, line separators, U+FEFF, or too long."""
    if len(name.encode("utf-8", "surrogatepass")) > MAILBOX_BYTES_MAX:
        raise BadName("Mailbox name is too long")
    # RFC 9051 §5.1 (Net-Unicode, RFC 5198): no C0, DEL, C1, U+2028, U+2029
    if any(char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029\ufeff" or "\ud800" <= char <= "\udfff" for char in name):
        raise BadName("Mailbox name has a control character")


def check_new_name(name: str, separator: str) -> None:
    """What a name that is to be created or renamed to must not be, whatever the store's own policy. Raises `BadName`.

    No wildcards (nobody could list it alone), no empty, "." or ".." level, no leading separator, no space at a level's ends.
    One trailing separator must have been taken off before (RFC 9051 §6.3.4).
    """
    check_characters(name)
    if "*" in name or "%" in name:
        raise BadName("Mailbox name has a wildcard")
    for level in name.split(separator):
        if level in ("", ".", ".."):
            raise BadName("Mailbox name has an empty or relative level")
        if level != level.strip():
            raise BadName("Mailbox name has a level that begins or ends with a space")

"""Reading command lines: verbs, paths, ESMTP parameters (RFC 5321 §4.1.1, §4.1.2)."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, cast

from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.protocol.smtp import reasons

Body = Literal["7BIT", "8BITMIME", "BINARYMIME"]

# RFC 5321 §4.1.2: esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-"); esmtp-value = 1*(%d33-60 / %d62-126), UTF-8 by RFC 6531 §3.3.
_KEYWORD: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*\Z")
_VALUE: Final = re.compile(rb"[\x21-\x3c\x3e-\x7e\x80-\xff]+\Z")
# RFC 3461 §4: xtext.
_XTEXT: Final = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})+\Z")
# RFC 5321 §4.1.1.1 says Domain or address-literal; underscores and single labels are widespread in client names and do no harm.
_HELO: Final = re.compile(rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[[A-Za-z0-9:.-]+\])\Z")


class MailCommand(NamedTuple):
    """MAIL. `path` is what stood between the angle brackets, not yet parsed; b"" for the null reverse-path."""

    path: bytes
    size: int | None = None  # bytes, as declared (RFC 1870)
    body: Body = "7BIT"  # RFC 6152, RFC 3030
    smtputf8: bool = False  # RFC 6531
    auth: bytes | None = None  # RFC 4954 §5, xtext; nothing depends on it


class RcptCommand(NamedTuple):
    """RCPT. `path` is what stood between the angle brackets, not yet parsed."""

    path: bytes


def split_command(line: bytes) -> tuple[str, bytes]:
    """The verb in upper case ("" when it's not ASCII letters) and what follows it, outer spaces removed."""
    verb, _, argument = line.partition(b" ")
    # RFC 5321 §2.4: verbs are not case sensitive. Trailing spaces are tolerated (§4.1.1: "receivers SHOULD tolerate").
    verb = verb.rstrip(b"\t")
    return (verb.decode("ascii").upper() if verb.isalpha() and verb.isascii() else ""), argument.strip(b" \t")


def parse_helo(argument: bytes) -> str | Reason:
    """The client's name. It ends up in the Received header, so nothing but host name characters passes."""
    if not argument or len(argument) > limits.DOMAIN_BYTES_MAX or not _HELO.match(argument):
        return reasons.HELO_SYNTAX
    return argument.decode("ascii")


def parse_mail(argument: bytes, *, auth: bool) -> MailCommand | Reason:
    """RFC 5321 §4.1.1.2. `auth`: the AUTH extension is in force, so its parameter is too (RFC 4954 §5)."""
    if argument[:5].upper() != b"FROM:":
        return reasons.MAIL_SYNTAX
    split = _split_path(argument[5:])
    if split is None:
        return reasons.MAIL_SYNTAX
    path, rest = split
    if not rest:
        return MailCommand(path)
    parameters = _parameters(rest)
    if isinstance(parameters, Reason):
        return parameters
    return _mail_parameters(MailCommand(path), parameters, auth=auth)


def _mail_parameters(command: MailCommand, parameters: dict[bytes, bytes | None], *, auth: bool) -> MailCommand | Reason:
    for keyword, value in parameters.items():
        if keyword == b"SIZE":
            # RFC 1870 §3: size-value = 1*20DIGIT
            if value is None or not value.isdigit() or len(value) > 20:
                return reasons.PARAMETER_SYNTAX
            command = command._replace(size=int(value))
        elif keyword == b"BODY":
            # RFC 6152 §3, RFC 3030 §3
            name = (value or b"").upper()
            if name not in (b"7BIT", b"8BITMIME", b"BINARYMIME"):
                return reasons.PARAMETER_SYNTAX
            command = command._replace(body=cast("Body", name.decode("ascii")))
        elif keyword == b"SMTPUTF8":
            # RFC 6531 §3.4 item 2: it has no value
            if value is not None:
                return reasons.PARAMETER_SYNTAX
            command = command._replace(smtputf8=True)
        elif keyword == b"AUTH" and auth:
            if value is None or not _XTEXT.match(value):
                return reasons.PARAMETER_SYNTAX
            command = command._replace(auth=value)
        else:
            return reasons.PARAMETER_UNKNOWN
    return command


def parse_rcpt(argument: bytes) -> RcptCommand | Reason:
    """RFC 5321 §4.1.1.3. No extension that has RCPT parameters is offered."""
    if argument[:3].upper() != b"TO:":
        return reasons.RCPT_SYNTAX
    split = _split_path(argument[3:])
    if split is None:
        return reasons.RCPT_SYNTAX
    path, rest = split
    if rest:
        parameters = _parameters(rest)
        return parameters if isinstance(parameters, Reason) else reasons.PARAMETER_UNKNOWN
    return RcptCommand(path)


def parse_bdat(argument: bytes) -> tuple[int, bool] | Reason:
    """RFC 3030 §2: the chunk's size in bytes, and whether it is the last."""
    words = argument.split()
    if not 1 <= len(words) <= 2 or not words[0].isdigit() or len(words[0]) > limits.BDAT_SIZE_DIGITS_MAX:
        return reasons.BDAT_SYNTAX
    if len(words) == 2 and words[1].upper() != b"LAST":
        return reasons.BDAT_SYNTAX
    return int(words[0]), len(words) == 2


def _split_path(text: bytes) -> tuple[bytes, bytes] | None:
    """What stands in the angle brackets, and the parameters behind; None when there are no matching brackets."""
    # RFC 5321 §3.3 forbids space before the bracket; so many clients send one that it's tolerated.
    text = text.lstrip(b" ")
    if not text.startswith(b"<"):
        return None
    end = text.find(b">") if b'"' not in text else _closing_bracket(text)
    if end < 0:
        return None
    rest = text[end + 1 :]
    if rest and not rest.startswith(b" "):
        return None
    return text[1:end], rest.strip(b" ")


def _closing_bracket(text: bytes) -> int:
    """Index of the ">" that isn't in a quoted string (RFC 5321 §4.1.2: Quoted-string, quoted-pairSMTP); -1 when there is none."""
    quoted = escaped = False
    for index, byte in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and byte == 0x5C:
            escaped = True
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x3E and not quoted:
            return index
    return -1


def _parameters(text: bytes) -> dict[bytes, bytes | None] | Reason:
    words = text.split()
    if len(words) > limits.PARAMETERS_MAX:
        return reasons.PARAMETER_SYNTAX
    found: dict[bytes, bytes | None] = {}
    for word in words:
        keyword, equals, value = word.partition(b"=")
        if not _KEYWORD.match(keyword) or (equals and not _VALUE.match(value)):
            return reasons.PARAMETER_SYNTAX
        keyword = keyword.upper()
        if keyword in found:
            return reasons.PARAMETER_SYNTAX
        found[keyword] = value if equals else None
    return found

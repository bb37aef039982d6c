"""Which folder names are possible."""

from __future__ import annotations

import unicodedata

from mailpod.errors import Refused
from mailpod.limits import store as limits
from mailpod.store.reasons import BAD_FOLDER_NAME
from mailpod.store.types import SEPARATOR

INBOX = "INBOX"


def canonical(name: str) -> str:
    """The name as it is stored: NFC, INBOX in capitals (RFC 9051 §5.1). Raises `Refused` for an impossible one."""
    name = unicodedata.normalize("NFC", name)
    levels = name.split(SEPARATOR)
    if len(name.encode("utf-8", "surrogatepass")) > limits.FOLDER_NAME_BYTES_MAX or len(levels) > limits.FOLDER_DEPTH_MAX:
        raise Refused(BAD_FOLDER_NAME, "too long or too deep")
    for level in levels:
        if not level:
            raise Refused(BAD_FOLDER_NAME, "an empty level")
        # RFC 5198 §2: no controls; surrogates are no characters; line separators end lines elsewhere.
        if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in level):
            raise Refused(BAD_FOLDER_NAME, "a control character")
    if levels[0].upper() == INBOX:
        levels[0] = INBOX
    return SEPARATOR.join(levels)


def parents(name: str) -> list[str]:
    """The names above, highest first."""
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:depth]) for depth in range(1, len(levels))]

"""GETQUOTA, GETQUOTAROOT, SETQUOTA (RFC 9208)."""

from __future__ import annotations

from mailpod.limits import imap as limits
from mailpod.protocol.imap import commands
from mailpod.protocol.imap.grammar.verb import Verb
from mailpod.protocol.imap.states import AFTER_LOGIN
from mailpod.protocol.imap.tokenizer import Cursor


def parse_getquota(cursor: Cursor) -> commands.GetQuota:
    """`SP quota-root-name`."""
    cursor.space()
    return commands.GetQuota(cursor.text_astring())


def parse_getquotaroot(cursor: Cursor) -> commands.GetQuotaRoot:
    """`SP mailbox`."""
    cursor.space()
    return commands.GetQuotaRoot(cursor.mailbox())


def parse_setquota(cursor: Cursor) -> commands.SetQuota:
    """`SP quota-root-name SP "(" [resource SP number64 …] ")"`."""

    def limit() -> tuple[str, int]:
        name = cursor.atom().decode("ascii").upper()
        cursor.space()
        return name, cursor.number64()

    cursor.space()
    root = cursor.text_astring()
    cursor.space()
    return commands.SetQuota(root, tuple(cursor.parenthesized(limit, limits.QUOTA_RESOURCES_MAX, empty=True)))


VERBS = (
    Verb("GETQUOTA", AFTER_LOGIN, parse_getquota),
    Verb("GETQUOTAROOT", AFTER_LOGIN, parse_getquotaroot),
    Verb("SETQUOTA", AFTER_LOGIN, parse_setquota),
)

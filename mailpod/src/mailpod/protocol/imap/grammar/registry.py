"""The table of all commands. An extension is a file with a `VERBS` table beside this one, and its name in `_FAMILIES`."""

from __future__ import annotations

from mailpod.protocol.imap.grammar import append, connection, fetch, listing, mailboxes, quota, search, selected, sort_thread
from mailpod.protocol.imap.grammar.verb import Verb

_FAMILIES = (connection, mailboxes, listing, append, selected, fetch, search, sort_thread, quota)


def _join() -> dict[str, Verb]:
    table: dict[str, Verb] = {}
    for family in _FAMILIES:
        for verb in family.VERBS:
            assert verb.name not in table, f"{verb.name} is defined twice"
            table[verb.name] = verb
    return table


VERBS = _join()
"""Name in upper case ("UID FETCH" for a UID form) → entry."""

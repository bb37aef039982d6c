"""The table of commands and capabilities. An extension is a file in `families/` and its name in `_FAMILIES`."""

from __future__ import annotations

from mailpod.protocol.imap.commands import Body
from mailpod.sessions.imap.capabilities import Capability
from mailpod.sessions.imap.families import (
    any_state,
    appending,
    copying,
    enabling,
    fetching,
    folders,
    idling,
    listing,
    login,
    quota,
    searching,
    selecting,
    sorting,
    storing,
)
from mailpod.sessions.imap.state import Spec

_FAMILIES = (
    any_state,
    login,
    enabling,
    idling,
    selecting,
    folders,
    listing,
    appending,
    fetching,
    searching,
    sorting,
    storing,
    copying,
    quota,
)


def _commands() -> dict[type[Body], Spec]:
    table: dict[type[Body], Spec] = {}
    for family in _FAMILIES:
        for body, spec in family.COMMANDS.items():
            assert body not in table, f"{body.__name__} has two handlers"
            table[body] = spec
    return table


COMMANDS = _commands()
CAPABILITIES: tuple[Capability, ...] = tuple(capability for family in _FAMILIES for capability in family.CAPABILITIES)

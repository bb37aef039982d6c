"""When a capability is announced (RFC 9051 §6.1.1): each family names its own, `table` joins them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mailpod.sessions.imap.state import ImapState


class When(enum.Flag):
    """The states in which a capability means something."""

    BEFORE_LOGIN = enum.auto()
    AFTER_LOGIN = enum.auto()
    ALWAYS = BEFORE_LOGIN | AFTER_LOGIN


class Capability(NamedTuple):
    """One announced word, or several that depend on the session."""

    name: str
    when: When = When.AFTER_LOGIN
    words: Callable[[ImapState], tuple[str, ...]] | None = None  # instead of the name, where it depends on the session


def announced(capabilities: tuple[Capability, ...], state: ImapState) -> list[str]:
    """The words for the state in which the session is."""
    now = When.BEFORE_LOGIN if state.opened_account is None else When.AFTER_LOGIN
    words: list[str] = []
    for capability in capabilities:
        if now in capability.when:
            words.extend(capability.words(state) if capability.words is not None else (capability.name,))
    return words

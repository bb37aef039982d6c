"""The states of a connection (RFC 9051 §3), and which sets of them commands are allowed in."""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    """Set by the session in `Reader.state` whenever it changes."""

    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"
    LOGOUT = "logout"  # nothing is allowed any more


ANY: Final = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})
BEFORE_LOGIN: Final = frozenset({State.NOT_AUTHENTICATED})
AFTER_LOGIN: Final = frozenset({State.AUTHENTICATED, State.SELECTED})
SELECTED: Final = frozenset({State.SELECTED})

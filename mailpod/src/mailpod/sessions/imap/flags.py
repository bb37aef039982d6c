"""Flag names and the bits of a flag mask (RFC 9051 §2.3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mailpod.store.types import FIRST_KEYWORD_BIT, SYSTEM_FLAGS

_SYSTEM = {name.lower(): np.uint64(1 << bit) for bit, name in enumerate(SYSTEM_FLAGS)}


def bit_of(flag: str, keywords: Sequence[str]) -> np.uint64:
    """The flag's bit; 0 for a keyword that no message of the account has. Flags compare without case."""
    folded = flag.lower()
    system = _SYSTEM.get(folded)
    if system is not None:
        return system
    for index, keyword in enumerate(keywords):
        if keyword.lower() == folded:
            return np.uint64(1 << (FIRST_KEYWORD_BIT + index))
    return np.uint64(0)


def mask_of(flags: Sequence[str], keywords: Sequence[str]) -> np.uint64:
    """All bits of `flags`."""
    mask = np.uint64(0)
    for flag in flags:
        mask |= bit_of(flag, keywords)
    return mask


def all_names(keywords: Sequence[str]) -> tuple[str, ...]:
    """Names by bit number."""
    return (*SYSTEM_FLAGS, *keywords)

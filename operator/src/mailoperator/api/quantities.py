"""Sizes and durations as the resources write them."""

from __future__ import annotations

import re
from typing import Final

Quantity = int | str

_QUANTITY: Final = re.compile(r"([1-9][0-9]{0,14})(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?\Z")
_FACTORS: Final = {
    None: 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_quantity(value: Quantity) -> int:
    """Bytes of a size such as 5Gi, 500M or 1048576. Raises ValueError with a sentence."""
    found = _QUANTITY.match(str(value)) if not isinstance(value, bool) else None
    if found is None:
        raise ValueError(
            f"must be a size such as 500Mi or 5Gi, a whole number above zero with k, M, G, T, P, Ki, Mi, Gi, Ti or Pi; not {value!r}"
        )
    size = int(found[1]) * _FACTORS[found[2]]
    if size >= 2**63:
        raise ValueError(f"must be below 8Ei; {value!r} is more")
    return size


def parse_duration(value: str) -> int:
    """Seconds of a duration such as 14d: ONE number and one of s, m, h, d. Raises ValueError with a sentence."""
    found = _DURATION.match(value)
    if found is None:
        raise ValueError(f"must be a duration such as 90s, 15m, 12h or 14d: one number and one unit; not {value!r}")
    return int(found[1]) * _SECONDS[found[2]]

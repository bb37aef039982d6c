"""SASLprep (RFC 4013): names and passwords in one form, whatever keyboard and normalisation they came from."""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0

# RFC 4013 §2.3: what a prepared string must not contain.
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str | None:
    """`text` prepared as a query string (unassigned code points allowed), or None when it holds what is prohibited."""
    if text.isascii():
        return text if text.isprintable() else None  # C.2.1: control characters
    # §2.1 Mapping: non-ASCII spaces become SPACE, "commonly mapped to nothing" vanishes. §2.2 Normalization: KC.
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if any(table(c) for c in prepared for table in _PROHIBITED):
        return None
    # §2.4 Bidirectional characters (RFC 3454 §6).
    if any(stringprep.in_table_d1(c) for c in prepared):
        if any(stringprep.in_table_d2(c) for c in prepared):
            return None
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            return None
    return prepared

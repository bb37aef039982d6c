"""Base subjects (RFC 5256 §2.1): what SORT SUBJECT compares and THREAD groups by."""

from __future__ import annotations

import re
from typing import NamedTuple

_SPACES = re.compile(r"[ \t\r\n]+")
# subj-blob = "[" *BLOBCHAR "]" *WSP ; subj-refwd = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"
_BLOBS = re.compile(r"(?:\[[^\[\]]*\][ \t]*)*+")
_REFWD = re.compile(r"(?:re|fwd?)[ \t]*(?:\[[^\[\]]*\][ \t]*)?:", re.IGNORECASE)


class BaseSubject(NamedTuple):
    """The extracted subject, casefolded, and whether a mark of a reply or forward was removed on the way."""

    text: str
    is_reply: bool


def base_subject(subject: str) -> BaseSubject:
    """RFC 5256 §2.1, steps 1 to 6, on a decoded subject."""
    text = _SPACES.sub(" ", subject)  # step 1
    is_reply = False
    while True:
        while True:  # step 2
            text = text.rstrip(" ")
            if text[-5:].lower() != "(fwd)":
                break
            text, is_reply = text[:-5], True
        start = 0
        while True:  # steps 3 to 5, by position: a long chain costs linear time
            while text.startswith(" ", start):
                start += 1
            blobs = _BLOBS.match(text, start)
            after = blobs.end() if blobs else start
            if (refwd := _REFWD.match(text, after)) is not None:  # step 3: subj-leader = *subj-blob subj-refwd
                start, is_reply = refwd.end(), True
                continue
            if after == len(text) and after > start:  # step 4: a blob goes only when something is left
                last = text.rfind("[", start)
                start = max(start, last)
            else:
                start = after
            break
        text = text[start:]
        if text[:5].lower() == "[fwd:" and text.endswith("]"):  # step 6
            text, is_reply = text[5:-1], True
            continue
        return BaseSubject(text.casefold(), is_reply)

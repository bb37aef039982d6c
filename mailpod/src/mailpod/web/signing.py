"""Pods of one fleet know each other by HMAC-SHA-256 under the fleet's key, over method, path, body and a time stamp."""

from __future__ import annotations

import hmac
from typing import Final

from mailpod.limits import web as limits

HEADER: Final = "X-Postroom-Signature"


def sign(key: bytes, method: str, target: str, body: bytes, now: float) -> str:
    """The header's value: "<seconds>:<hex>". `target` is the path with its query."""
    stamp = str(int(now))
    return f"{stamp}:{_mac(key, method, target, body, stamp)}"


def fault(key: bytes | None, method: str, target: str, body: bytes, value: str, now: float) -> str:
    """Why a request is not from a pod of this fleet; "" when it is."""
    if key is None:
        return "this pod has no fleet key"
    stamp, separator, mac = value.partition(":")
    if not separator or not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        return "not signed"
    # The signature first: an outsider learns nothing about clocks.
    if not hmac.compare_digest(_mac(key, method, target, body, stamp).encode(), mac.encode(errors="replace")):
        return "the signature does not fit"
    if abs(now - int(stamp)) > limits.SIGNATURE_AGE_S_MAX:
        return "the signature's time is too far from this pod's"
    return ""


def _mac(key: bytes, method: str, target: str, body: bytes, stamp: str) -> str:
    # Lengths are not needed: neither a method, a target nor a stamp can hold a line end.
    return hmac.digest(key, b"\n".join((method.encode(), target.encode(), stamp.encode(), body)), "sha256").hex()

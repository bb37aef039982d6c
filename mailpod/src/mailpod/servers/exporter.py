"""Keying material of a TLS connection for channel binding (RFC 9266 tls-exporter), which the ssl module does not hand out.

Clients that bind on TLS 1.3 bind by tls-exporter and by nothing else, so SCRAM-SHA-256-PLUS can't be offered there without it. OpenSSL's
own function is called in the very library that the ssl module uses. Where the connection's pointer is found is checked on each object
against something known (the neighbouring field must be its context); when anything is not as expected, there is no exporter.
"""

from __future__ import annotations

import _ssl
import ctypes
import functools
import ssl
from collections.abc import Callable
from typing import Any

_LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 §2
_BYTES = 32

# CPython's PySSLSocket: the object's head, a weak reference to the socket, SSL *, PySSLContext *.
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_SSL_OFFSET = object.__basicsize__ + _POINTER
_CONTEXT_OFFSET = object.__basicsize__ + 2 * _POINTER


@functools.cache
def _export() -> Callable[..., Any] | None:
    """OpenSSL's SSL_export_keying_material; None where the ssl module's library can't be reached (statically linked, not CPython)."""
    path = getattr(_ssl, "__file__", None)
    if path is None:
        return None
    try:
        function = ctypes.CDLL(path).SSL_export_keying_material  # found in the libraries that _ssl itself is linked to
    except (OSError, AttributeError):
        return None
    size, text = ctypes.c_size_t, ctypes.c_char_p
    function.argtypes = [ctypes.c_void_p, text, size, text, size, text, size, ctypes.c_int]
    function.restype = ctypes.c_int
    return function


def tls_exporter(connection: ssl.SSLObject | ssl.SSLSocket) -> bytes | None:
    """The binding of an established TLS 1.3 connection; None when there is none to be had."""
    export = _export()
    inner = getattr(connection, "_sslobj", None)
    if export is None or inner is None or connection.version() != "TLSv1.3":
        return None
    if type(inner).__basicsize__ < _CONTEXT_OFFSET + _POINTER:
        return None
    address = id(inner)
    if ctypes.c_void_p.from_address(address + _CONTEXT_OFFSET).value != id(inner.context):
        return None
    pointer = ctypes.c_void_p.from_address(address + _SSL_OFFSET).value
    if not pointer:
        return None
    out = ctypes.create_string_buffer(_BYTES)
    if export(pointer, out, _BYTES, _LABEL, len(_LABEL), b"", 0, 1) != 1:
        return None
    return out.raw

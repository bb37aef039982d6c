"""JSON log lines on standard output: ts, level, event, logger, and fields. What looks like a secret never gets there."""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO

import msgspec
import structlog

from mailpod.ports import Clock

LEVELS: Final = {"Debug": logging.DEBUG, "Info": logging.INFO, "Warning": logging.WARNING, "Error": logging.ERROR}
REDACTED: Final = "[redacted]"
_DEPTH_MAX: Final = 4  # fields nested deeper are shown as text
_TEXT_CHARS_MAX: Final = 16_384  # one field of one line; a traceback fits

_SECRET_KEY: Final = re.compile(
    r"pass(word|wd|phrase)?$|passwords|secret|token|credential|authorization|private_?key|access_?key|fleet_?key|verifier|cookie"
    r"|stored_key|server_key|sasl_(response|data)|auth_(response|data)|initial_response",
    re.IGNORECASE,
)
# Verifiers, PEM keys, and the base64 that follows AUTH or AUTHENTICATE on the wire, wherever they turn up in a text.
_SECRET_TEXT: Final = re.compile(
    r"\$(argon2\w*|sha256|scram-[\w-]+)\$[^\s\"']+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|(?<=AUTH PLAIN )\S+|(?<=AUTHENTICATE PLAIN )\S+|(?<=X-Amz-Signature=)\w+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE | re.DOTALL,
)

_state = {"level": logging.INFO}


def set_level(name: str) -> None:
    """Log from this level of `LEVELS` on; holds at once for all loggers."""
    _state["level"] = LEVELS[name]
    logging.getLogger().setLevel(max(LEVELS[name], logging.INFO))  # libraries' debugging is never wanted


class _Line:
    """What structlog writes to: one line a call, whole, from any thread."""

    _lock = threading.Lock()

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: bytes) -> None:
        with self._lock:
            try:
                self._stream.buffer.write(line)
                self._stream.buffer.flush()
            except (BrokenPipeError, ValueError):
                return  # nobody reads any more; mail goes on

    debug = info = warning = error = critical = exception = log = msg


def configure(level: str, clock: Clock, stream: TextIO | None = None) -> None:
    """Set logging up for the whole process, libraries' included."""
    target = stream if stream is not None else sys.stdout
    structlog.configure(
        processors=[
            _filter,
            structlog.contextvars.merge_contextvars,
            _naming,
            _stamping(clock),
            structlog.processors.format_exc_info,
            redact,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda name="", *_: _Line(name, target),
        cache_logger_on_first_use=False,
    )
    logging.root.handlers[:] = [_Bridge()]
    set_level(level)


def _filter(_: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _METHODS.get(method, logging.ERROR) < _state["level"]:
        raise structlog.DropEvent
    return event


_METHODS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}


def _naming(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["level"] = "error" if method in ("exception", "critical") else method
    event.setdefault("logger", getattr(logger, "name", ""))
    return event


def _stamping(clock: Clock) -> Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]:
    def stamp(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        moment = dt.datetime.fromtimestamp(clock.now(), dt.UTC)
        event["ts"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return event

    return stamp


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace what looks like a secret, by its field's name or by its form."""
    for key, value in event.items():
        if type(value) is not int and type(value) is not float:
            event[key] = _clean(key, value, 0)
    return event


def _clean(key: str, value: Any, depth: int) -> Any:
    if _SECRET_KEY.search(key) is not None and value is not None and not isinstance(value, bool):
        return REDACTED
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode(errors="backslashreplace")
    if isinstance(value, str):
        return _SECRET_TEXT.sub(REDACTED, value[:_TEXT_CHARS_MAX])
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            return {str(name): _clean(str(name), item, depth + 1) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_clean("", item, depth + 1) for item in value]
    return _SECRET_TEXT.sub(REDACTED, str(value)[:_TEXT_CHARS_MAX])


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> bytes:
    ordered = {key: event.pop(key) for key in ("ts", "level", "event", "logger") if key in event}
    return msgspec.json.encode({**ordered, **event}) + b"\n"


class _Bridge(logging.Handler):
    """Libraries' log records, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        method = "debug" if record.levelno < logging.INFO else "info" if record.levelno < logging.WARNING else "warning"
        method = "error" if record.levelno >= logging.ERROR else method
        logger = structlog.get_logger(record.name)
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not end a session
            message = f"{record.msg} (arguments do not fit)"
        getattr(logger, method)("library", message=message, exc_info=record.exc_info or None)

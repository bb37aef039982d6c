"""Log lines: their form, their level, and what never gets into them."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from mailpod.main import logs


class Clock:
    def now(self) -> float:
        return 1_800_000_000.25

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("logging never waits")


@pytest.fixture
def lines():
    buffer = io.BytesIO()
    handlers, level = logging.root.handlers[:], logging.root.level
    logs.configure("Info", Clock(), io.TextIOWrapper(buffer, write_through=True))
    yield lambda: [json.loads(line) for line in buffer.getvalue().splitlines()]
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def test_form(lines):
    """Log collectors need one JSON object a line, with a time, a level and a name."""
    structlog.get_logger("mailpod.x").info("delivered", account="alice@example.com", size=3, queue_id=None)
    assert lines() == [
        {
            "ts": "2027-01-15T08:00:00.250Z",
            "level": "info",
            "event": "delivered",
            "logger": "mailpod.x",
            "account": "alice@example.com",
            "size": 3,
            "queue_id": None,
        }
    ]


def test_level_is_changed_at_once(lines):
    """A reload of the log level holds for loggers that exist."""
    logger = structlog.get_logger("x")
    logger.debug("one")
    logs.set_level("Debug")
    logger.debug("two")
    logs.set_level("Error")
    logger.warning("three")
    logger.error("four")
    assert [line["event"] for line in lines()] == ["two", "four"]


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "fields",
    [
        {"password": SECRET},
        {"new_password": SECRET},
        {"secret_access_key": SECRET},
        {"Authorization": f"Bearer {SECRET}"},
        {"token": SECRET},
        {"credentials": [SECRET]},
        {"verifier": f"$argon2id$v=19$m=1,t=1,p=1$AAAA${SECRET}"},
        {"why": f"bad verifier $sha256$AAAA${SECRET}"},
        {"nested": {"deep": {"passwd": SECRET}}},
        {"listed": [{"api_token": SECRET}]},
        {"line": f"AUTH PLAIN {SECRET}"},
        {"line": f"a1 AUTHENTICATE PLAIN {SECRET}"},
        {"data": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----".encode()},
        {"url": f"http://user:{SECRET}@s3.example.com/x"},
        {"url": f"https://s3.example.com/?X-Amz-Signature={SECRET.replace('-', '')}"},
        {"fleet_key": SECRET.encode()},
        {"private_key": SECRET},
        {"sasl_response": SECRET},
    ],
)
@pytest.mark.case(23)
def test_no_secret_in_any_line(lines, fields):
    """Logs are read by more people than passwords are meant for."""
    structlog.get_logger("x").warning("event", **fields)
    (line,) = lines()
    assert SECRET not in json.dumps(line)
    assert SECRET.replace("-", "") not in json.dumps(line)
    assert logs.REDACTED in json.dumps(line)


def test_harmless_fields_are_kept(lines):
    """Redaction must not hide what is needed to find a fault."""
    fields = {"key": "v1/a/alice", "mechanism": "SCRAM-SHA-256", "auth": "ok", "author": "x", "passed": True, "monkey": 1}
    structlog.get_logger("x").info("event", **fields)
    assert {name: lines()[0][name] for name in fields} == fields


def test_exceptions_and_odd_values(lines):
    """A traceback goes into one field; bytes, objects, depth and size are bounded and never break a line."""
    deep: dict[str, object] = {"x": 1}
    for _ in range(50):
        deep = {"x": deep}
    try:
        raise ValueError("broken $argon2id$v=19$secret")
    except ValueError:
        structlog.get_logger("x").exception("failed", raw=b"\xff\r\n", thing=object(), deep=deep, long="y" * 10**6, odd={1: {2}})
    (line,) = lines()
    assert line["level"] == "error"
    assert "ValueError: broken [redacted]" in line["exception"]
    assert line["raw"] == "\\xff\r\n"
    assert line["odd"] == {"1": [2]}
    assert len(json.dumps(line)) < 100_000


def test_libraries_log_in_the_same_form(lines):
    """What asyncio or aiohttp has to say must not get lost, nor break the format."""
    logging.getLogger("asyncio").warning("slow %s", "callback")
    logging.getLogger("asyncio").debug("never shown")
    logs._Bridge().emit(logging.LogRecord("lib", logging.ERROR, "", 0, "bad %d", ("format",), None))
    assert [(line["logger"], line["level"], line["message"]) for line in lines()] == [
        ("asyncio", "warning", "slow callback"),
        ("lib", "error", "bad %d (arguments do not fit)"),
    ]

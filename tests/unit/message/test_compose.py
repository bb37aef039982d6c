"""Fields and messages that we write."""

import email
import email.policy
from typing import Any

import pytest

from mailpod.message import compose, summarize
from mailpod.message.compose import Dsn, DsnRecipient, build_dsn, fix_submission
from mailpod.message.headers import UnsafeHeaderError, fields, values
from mailpod.message.validate import validate

DATE = "Tue, 24 Nov 2026 08:31:05 +0000"


def _received(**changes: str) -> bytes:
    known = {
        "helo": "client.example.org",
        "client_ip": "192.0.2.1",
        "by": "mx.example.com",
        "protocol": "ESMTPS",
        "message_id": "abc-1",
        "date": DATE,
        "recipient": "alice@example.com",
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
    }
    return compose.received(**(known | changes))


def test_received():
    """RFC 5321 §4.4, folded so that it reads."""
    assert _received() == (
        b"Received: from client.example.org ([192.0.2.1])\r\n\tby mx.example.com with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384) id abc-1"
        b"\r\n\tfor <alice@example.com>;\r\n\tTue, 24 Nov 2026 08:31:05 +0000\r\n"
    )
    assert b"([IPv6:2001:db8::1])" in _received(client_ip="2001:db8::1")
    assert b"for" not in _received(recipient="")


@pytest.mark.case(8)
@pytest.mark.parametrize("name", ["helo", "client_ip", "client_name", "by", "protocol", "message_id", "date", "recipient", "tls"])
@pytest.mark.parametrize("evil", ["x\r\nBcc: y", "x\nBcc: y", "x\rBcc: y", "x\x1cBcc: y", "x\u2028Bcc: y", "x) (y", "x;y"])
def test_received_is_one_field(name, evil):
    """What a client calls itself cannot write headers into somebody's mail."""
    written = _received(**{name: evil})
    assert [field.name for field in fields(written + b"\r\n")] == [b"received"]
    assert email.message_from_bytes(written + b"\r\n", policy=email.policy.compat32).keys() == ["Received"]
    assert all(line.startswith(("Received:", "\t")) for line in written.decode().splitlines())


def test_trace_fields():
    """Return-Path of the null sender, Delivered-To; line breaks are refused."""
    assert compose.return_path("") == b"Return-Path: <>\r\n"
    assert compose.return_path("a@example.com") == b"Return-Path: <a@example.com>\r\n"
    assert compose.delivered_to("ü@example.com") == "Delivered-To: ü@example.com\r\n".encode()
    for evil in ("a\r\nX: y", "a\u2028b", "a\x1cb"):
        with pytest.raises(UnsafeHeaderError):
            compose.return_path(evil)
        with pytest.raises(UnsafeHeaderError):
            compose.delivered_to(evil)


def test_submission_is_completed():
    """RFC 6409 §8: Date and Message-ID are added, hidden recipients are taken out, everything else stays byte for byte."""
    raw = b"From: a@example.com\r\nBcc: secret@example.com\r\n\r\nbody\r\n"
    fixed = fix_submission(raw, date=DATE, message_id="x@example.com")
    assert fixed == b"Date: " + DATE.encode() + b"\r\nMessage-ID: <x@example.com>\r\nFrom: a@example.com\r\n\r\nbody\r\n"
    assert fix_submission(fixed, date="other", message_id="other") is fixed
    empty = fix_submission(b"Message-ID:\r\nDate: " + DATE.encode() + b"\r\n\r\n", date="other", message_id="x@example.com")
    assert values(empty, b"message-id") == [b"<x@example.com>"]
    assert fix_submission(b"", date=DATE, message_id="x@y").count(b"\r\n") == 2


def _dsn(**changes: Any) -> Dsn:
    known: dict[str, Any] = {
        "reporting_mta": "mx.example.com",
        "from_": "Mail Delivery System <postmaster@example.com>",
        "to": "bob@example.org",
        "subject": "Undelivered: Grüße",
        "date": DATE,
        "message_id": "dsn-1@mx.example.com",
        "boundary": "=_0123456789abcdef",
        "text": "Your message could not be delivered.\nSorry.\n",
        "recipients": [
            DsnRecipient("alice@example.com", "failed", "5.1.1", "550 5.1.1 no such\r\nuser", "mx.example.net", "rfc822;alice@example.com")
        ],
        "original": b"From: bob@example.org\r\nSubject: hi\r\n\r\nsecret body\r\n",
        "envelope_id": "QQ314159",
        "arrival_date": DATE,
    }
    return Dsn(**(known | changes))


def test_dsn():
    """RFC 3464: mail programs and list software read this; the body of the original is not sent back."""
    raw = build_dsn(_dsn())
    assert validate(raw) is None
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["Subject"] == "Undelivered: Grüße"
    assert message["Auto-Submitted"] == "auto-replied"
    text, status, original = message.iter_parts()
    assert text.get_content().replace("\r\n", "\n") == "Your message could not be delivered.\nSorry.\n"
    per_message, per_recipient = status.iter_parts()
    assert per_message["Reporting-MTA"] == "dns; mx.example.com"
    assert per_message["Original-Envelope-Id"] == "QQ314159"
    assert per_recipient["Final-Recipient"] == "rfc822; alice@example.com"
    assert per_recipient["Status"] == "5.1.1"
    assert per_recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert original.get_content_type() == "text/rfc822-headers"
    assert b"Subject: hi" in raw
    assert b"secret body" not in raw
    assert [part.media_type for part in summarize(raw).parts] == [
        "multipart/report",
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]


def test_dsn_in_utf8():
    """RFC 6533: international addresses make it the global form."""
    raw = build_dsn(_dsn(recipients=[DsnRecipient("jürgen@example.com", "failed", "5.1.1")]))
    assert "Final-Recipient: utf-8; jürgen@example.com".encode() in raw
    assert b"message/global-delivery-status" in raw
    assert b"message/global-headers" in raw


@pytest.mark.case(8)
def test_dsn_takes_no_injection():
    """Whatever the other server answered, and whatever the original says, no field and no part is added."""
    recipient = DsnRecipient("a@example.com", "fai\r\nled", "5\n.1", "550 no\r\n\r\n--=_0123456789abcdef\r\nX: y\u2028z", "mx\r\nX: y")
    message = email.message_from_bytes(build_dsn(_dsn(recipients=[recipient])))
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    for bad in ({"to": "a\r\nBcc: b@example.com"}, {"from_": "a\nb"}, {"message_id": "a\x1cb"}):
        with pytest.raises(UnsafeHeaderError):
            build_dsn(_dsn(**bad))
    with pytest.raises(ValueError, match="boundary"):
        build_dsn(_dsn(boundary='a"\r\nX: y'))

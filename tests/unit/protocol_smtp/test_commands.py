"""Command lines, ESMTP parameters and replies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.errors import Reason
from mailpod.protocol.smtp import (
    MailCommand,
    RcptCommand,
    Reply,
    encode,
    encode_lines,
    encode_reason,
    parse_bdat,
    parse_helo,
    parse_mail,
    parse_rcpt,
    reasons,
    split_command,
)


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (b"QUIT", ("QUIT", b"")),
        (b"quit ", ("QUIT", b"")),
        (b"mail From:<a@b>  ", ("MAIL", b"From:<a@b>")),
        (b"", ("", b"")),
        (b"\xffEHLO x", ("", b"x")),
        (b"EHL\xc3\xb6 x", ("", b"x")),
        (b"RCPT\tTO:<a>", ("", b"")),
    ],
)
def test_verbs(line, result):
    """RFC 5321 §2.4: verbs in any case; what is not ASCII is no verb."""
    assert split_command(line) == result


@pytest.mark.parametrize(
    ("argument", "command"),
    [
        (b"FROM:<>", MailCommand(b"")),
        (b"from: <alice@example.com>", MailCommand(b"alice@example.com")),
        (b"FROM:<a@b> SIZE=10 BODY=8bitmime", MailCommand(b"a@b", 10, "8BITMIME")),
        (b"FROM:<a@b> smtputf8 body=BINARYMIME", MailCommand(b"a@b", None, "BINARYMIME", smtputf8=True)),
        (b'FROM:<"a>b"@c> SIZE=1', MailCommand(b'"a>b"@c', 1)),
        (b'FROM:<"a\\">b"@c>', MailCommand(b'"a\\">b"@c')),
        (b"FROM:<a@b> AUTH=<>", MailCommand(b"a@b", auth=b"<>")),
        (b"FROM:<a@b> AUTH=e+3Dmc2@example.com", MailCommand(b"a@b", auth=b"e+3Dmc2@example.com")),
        (b"FROM:<a@b> SIZE=99999999999999999999", MailCommand(b"a@b", 99999999999999999999)),
    ],
)
def test_mail(argument, command):
    """RFC 5321 §4.1.1.2 with its parameters."""
    assert parse_mail(argument, auth=True) == command


@pytest.mark.case(9)
@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (b"", reasons.MAIL_SYNTAX),
        (b"TO:<a@b>", reasons.MAIL_SYNTAX),
        (b"FROM:a@b", reasons.MAIL_SYNTAX),
        (b"FROM:<a@b", reasons.MAIL_SYNTAX),
        (b'FROM:<"a@b>', reasons.MAIL_SYNTAX),
        (b"FROM:<a@b>SIZE=1", reasons.MAIL_SYNTAX),
        (b"FROM:<a@b> SIZE=", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> SIZE", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> SIZE=-1", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> SIZE=1e3", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> SIZE=\xd9\xa1", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> SIZE=999999999999999999999", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> SIZE=1 SIZE=2", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> BODY=9BIT", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> SMTPUTF8=yes", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> =x", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> AUTH=a+zz", reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> " + b"A " * 17, reasons.PARAMETER_SYNTAX),
        (b"FROM:<a@b> RET=HDRS", reasons.PARAMETER_UNKNOWN),
        (b"FROM:<a@b> X-\xff", reasons.PARAMETER_SYNTAX),
    ],
)
def test_bad_mail(argument, reason):
    """Anything else gets an answer that says what is wrong, and no transaction begins."""
    assert parse_mail(argument, auth=True) == reason


def test_auth_parameter_only_where_auth_is_offered():
    """RFC 4954 §5: a parameter of an extension that is not in force is unknown."""
    assert parse_mail(b"FROM:<a@b> AUTH=<>", auth=False) == reasons.PARAMETER_UNKNOWN


@pytest.mark.parametrize(
    ("argument", "result"),
    [
        (b"TO:<alice@example.com>", RcptCommand(b"alice@example.com")),
        (b"to: <Postmaster>", RcptCommand(b"Postmaster")),
        (b"TO:<a@b> NOTIFY=NEVER", reasons.PARAMETER_UNKNOWN),
        (b"TO:<a@b> =", reasons.PARAMETER_SYNTAX),
        (b"TO:a@b", reasons.RCPT_SYNTAX),
        (b"TO:<a@b>x", reasons.RCPT_SYNTAX),
        (b"", reasons.RCPT_SYNTAX),
    ],
)
def test_rcpt(argument, result):
    """RFC 5321 §4.1.1.3; DSN's parameters are not offered."""
    assert parse_rcpt(argument) == result


@pytest.mark.parametrize(
    ("argument", "result"),
    [
        (b"0", (0, False)),
        (b"86 last", (86, True)),
        (b"", reasons.BDAT_SYNTAX),
        (b"-1", reasons.BDAT_SYNTAX),
        (b"1 2", reasons.BDAT_SYNTAX),
        (b"1 LAST LAST", reasons.BDAT_SYNTAX),
        (b"0x10", reasons.BDAT_SYNTAX),
        (b"9" * 21, reasons.BDAT_SYNTAX),
    ],
)
def test_bdat(argument, result):
    """RFC 3030 §2."""
    assert parse_bdat(argument) == result


@pytest.mark.case(8)
@pytest.mark.parametrize(
    "name", [b"", b"a b", b"a\rb", b"a\x1cb", "a\u2028b".encode(), b"a(b)", b"a;b", b"[1.2.3.4", b"-a", b"x" * 256, "mü".encode()]
)
def test_helo_cannot_break_the_received_header(name):
    """The name is written into Received: nothing but host name characters may pass."""
    assert parse_helo(name) == reasons.HELO_SYNTAX


@pytest.mark.parametrize("name", [b"mail.example.com", b"localhost", b"[192.0.2.1]", b"[IPv6:2001:db8::1]", b"my_pc", b"example.com."])
def test_helo(name):
    """What real clients call themselves."""
    assert parse_helo(name) == name.decode()


def test_replies():
    """RFC 5321 §4.2.1, RFC 2034 §4: code and enhanced code on every line; nothing that could end a line early."""
    assert encode(Reply(250, "2.0.0", "Ok")) == b"250 2.0.0 Ok\r\n"
    assert encode(Reply(334, "", "")) == b"334 \r\n"
    assert encode(Reply(250, "2.0.0", "a\r\n550 b\x00ü")) == b"250 2.0.0 a??550 b??\r\n"
    assert encode_lines(250, "2.0.0", ["a", "b"]) == b"250-2.0.0 a\r\n250 2.0.0 b\r\n"
    assert len(encode(Reply(550, "5.0.0", "x" * 2000))) <= 512
    assert encode_reason(reasons.LINE_TOO_LONG) == b"500 5.5.6 Command line too long\r\n"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_parsers_never_raise(text):
    """Fuzz: any bytes give a command or a reason with a permanent error code."""
    split_command(text)
    for result in (
        parse_helo(text),
        parse_bdat(text),
        parse_mail(b"FROM:<" + text, auth=True),
        parse_mail(b"FROM:<a@b> " + text, auth=True),
        parse_rcpt(b"TO:<" + text),
        parse_rcpt(b"TO:<a@b> " + text),
    ):
        if isinstance(result, Reason):
            assert 500 <= result.smtp_code < 560

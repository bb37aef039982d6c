"""Encoded words, charsets, parameters."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpod.limits import message as limits
from mailpod.message.parameters import parameter, parameter_text, parse_content_type, parse_disposition, parse_languages, parse_parameters
from mailpod.message.words import codec, decode_charset, decode_words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"=?UTF-8?b?R3LDvMOfZQ==?= end", "Grüße end"),
        (b"=?utf-8?Q?a?= =?utf-8?Q?_b?=", "a b"),  # RFC 2047 §6.2: white space between encoded words is no text
        (b"=?utf-8?B?R3LD?= =?utf-8?B?vMOfZQ==?=", "Grüße"),  # a character split between two
        (b"=?utf-8*de?Q?x?=", "x"),  # RFC 2231 §5
        (b"=?iso-8859-1?Q?caf=E9?= =?utf-8?Q?=C3=A9?=", "caféé"),
        (b"=?utf-8?Q?unterminated", "=?utf-8?Q?unterminated"),
        (b"=?nonsense?Q?abc?= x", "=?nonsense?Q?abc?= x"),
        (b"=?utf-8?B?w?=", "=?utf-8?B?w?="),
        (b"=?utf-8?B?!!!!?= =?utf-8?Q?ok?=", "=?utf-8?B?!!!!?= ok"),
        (b"=?zlib?B?eJw=?=", "=?zlib?B?eJw=?="),
        (b"=?idna?Q?x?=", "=?idna?Q?x?="),
        ("Grüße".encode(), "Grüße"),
        (b"caf\xe9", "café"),
        (b"=??Q?x?=", "=??Q?x?="),
    ],
)
def test_decode_words(value, text):
    """Subjects and names as people wrote them; what is broken stays as it is."""
    assert decode_words(value) == text


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text("=?utf-8QqBb_*ABC=0123 ", max_size=60).map(str.encode)))
def test_decode_words_never_fails(value):
    """Any header bytes are some text."""
    assert isinstance(decode_words(value), str)


@pytest.mark.case(14)
@pytest.mark.parametrize(
    "name", ["zlib", "bz2", "hex", "rot13", "base64", "uu", "quopri", "idna", "punycode", "unicode_escape", "undefined", "../x", "a\0b", ""]
)
def test_codecs_that_are_no_charsets(name):
    """Python's codecs decompress and execute escapes; a message must not reach them by naming one."""
    assert codec(name) is None
    assert decode_charset(b"abc", name) == "abc"


@pytest.mark.parametrize(("data", "charset"), [(b"+2AA-", "utf-7"), (b"\x00\xd8", "utf-16-le"), (b"\xed\xa0\x80", "utf-8")])
def test_text_can_always_be_stored(data, charset):
    """Half surrogate pairs are no text; a summary that holds one could not be encoded, and the message not be delivered."""
    assert decode_charset(data, charset).encode()
    assert decode_words(b"=?" + charset.encode() + b"?B?" + base64.b64encode(data) + b"?=").encode()


def test_latin1_is_windows_1252():
    """What says ISO-8859-1 holds typographic quotes of Windows in practice."""
    assert decode_charset(b"\x93x\x94", "iso-8859-1") == "\u201cx\u201d"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text/plain; charset=utf-8", ((b"charset", b"utf-8"),)),
        (b'text/plain; CHARSET = "utf-8" ; format=flowed', ((b"charset", b"utf-8"), (b"format", b"flowed"))),
        (b"text/plain; name=my file.pdf; x=y", ((b"name", b"my file.pdf"), (b"x", b"y"))),
        (b"text/plain; name=report(1).pdf", ((b"name", b"report(1).pdf"),)),
        (b"text/plain (a comment; x=y); z=1 (c)", ((b"z", b"1"),)),
        (b'text/plain; name="a\\"b;c"', ((b"name", b'a"b;c'),)),
        (b'text/plain; name="unterminated; x=y', ((b"name", b"unterminated; x=y"),)),
        (b"text/plain; name*0=a; name*1=b", ((b"name", b"ab"),)),
        (b"text/plain; name*1=b; name*0=a", ((b"name", b"ab"),)),
        (b"text/plain; name*0*=utf-8''a%20; name*1=\"b%\"", ((b"name*", b"utf-8''a%20b%25"),)),
        (b"text/plain; name*=utf-8''%e2%82%ac", ((b"name*", b"utf-8''%e2%82%ac"),)),
        (b"text/plain; name*0=a; name*2=c", ((b"name", b"a"),)),
        (b"text/plain;;; ;x=1;", ((b"x", b"1"),)),
        (b"text/plain; =x; y", ()),
    ],
)
def test_parameters(value, expected):
    """RFC 2045 §5.1 and RFC 2231, and what senders make of them: file names arrive whole."""
    content = parse_content_type(value)
    assert content is not None
    assert (content.type, content.subtype) == (b"text", b"plain")
    assert content.parameters == expected


@pytest.mark.parametrize("value", [b"", b"text", b"/plain", b"text/", b";charset=x", b"()"])
def test_content_types_that_are_none(value):
    """RFC 2045 §5.2: they count as missing."""
    assert parse_content_type(value) is None


def test_parameter_text():
    """A file name for people: charset and percent signs decoded, encoded words too, which RFC 2047 forbids there and senders use."""
    assert parameter_text(((b"filename*", b"iso-8859-1'de'Gr%FC%DFe.txt"), (b"filename", b"x")), b"filename") == "Grüße.txt"
    assert parameter_text(((b"filename", b"=?utf-8?Q?Gr=C3=BC=C3=9Fe?="),), b"filename") == "Grüße"
    assert parameter_text((), b"filename") == ""
    assert parameter(((b"boundary*", b"us-ascii''a%20b"),), b"boundary") == b"a b"


def test_disposition_and_languages():
    """Content-Disposition and Content-Language as BODYSTRUCTURE shows them."""
    found = parse_disposition(b"Attachment (c); filename=a.pdf")
    assert found is not None
    assert found == (b"attachment", ((b"filename", b"a.pdf"),))
    assert parse_disposition(b"") is None
    assert parse_languages(b"de, en-GB (British),, ") == (b"de", b"en-GB")


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=120), st.text("a;=\"\\*0123%'( )\r\n", max_size=80).map(lambda text: b"a/b;" + text.encode())))
def test_parameters_never_fail(value):
    """Any bytes; the number of parameters is bounded."""
    content = parse_content_type(value)
    assert content is None or len(content.parameters) <= limits.PARAMETERS_MAX
    assert len(parse_parameters(value)) <= limits.PARAMETERS_MAX


@pytest.mark.case(6)
@pytest.mark.parametrize("unit", [b";", b"; ", b";a", b";a=", b';a="', b";a=b ", b"(", b";(", b"\\(", b" ", b";a*0=", b";a=b c"])
def test_parameter_parsing_is_linear(unit):
    """64 KB of anything repeated costs milliseconds: no pattern backtracks."""
    import time

    start = time.process_time()
    parse_content_type(b"a/b" + unit * (65536 // len(unit)))
    assert time.process_time() - start < 0.5

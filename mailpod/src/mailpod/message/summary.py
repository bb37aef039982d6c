"""What the store keeps of a message beside its bytes, computed once when it arrives, so that listing a folder reads no bodies."""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One MIME part (RFC 2046) with its byte offsets in the message. The root is path "".

    Numbering is IMAP's (RFC 9051 §6.4.5): the only part of a non-multipart message is "1" and is the root itself; a message/rfc822
    part's own text is numbered below it. Behind a message/rfc822 part P stands the root of the message inside it: "P.1" when that is
    no multipart, "P." when it is one (its parts are "P.1", "P.2", …). `sections.section_range` knows all of this.
    """

    path: str  # "", "1", "1.2", …
    header_start: int  # byte offset of the part's MIME header (of the message header for the root and inside message/rfc822)
    body_start: int  # after the blank line
    body_end: int  # exclusive, without the CRLF before the boundary
    media_type: str  # lower case "text/plain"
    encoding: str  # lower case Content-Transfer-Encoding: "7bit", "8bit", "binary", "base64", "quoted-printable", or as found
    charset: str  # lower case; "" where none applies
    kind: str = ""  # "multipart", "message" (message/rfc822 and message/global), or "" for a leaf


class Summary(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Derived from the message's bytes alone; may be computed again at any time by `mailpod.message.summarize`.

    New fields go to the end, with a default: old summaries stay readable.
    """

    envelope: bytes  # IMAP ENVELOPE with parentheses, ready to send (RFC 9051 §7.5.2): its one wire form
    bodystructure: bytes  # IMAP BODYSTRUCTURE with extension data, ready to send
    body: bytes  # the same without extension data (BODY)
    parts: tuple[Part, ...]  # in document order, root first
    header_size: int  # bytes up to and including the blank line
    preview: str  # RFC 8970: up to 200 characters of text
    subject: str  # decoded, unfolded
    base_subject: str  # RFC 5256 §2.1, casefolded
    from_: str  # sort key: addr-spec local part of the first From mailbox (RFC 5256 §3: addr-mailbox), casefolded
    to: str  # likewise
    cc: str  # likewise
    sent_at: int  # Date header, seconds since 1970-01-01 UTC; 0 when missing or unreadable
    message_id: str  # with angle brackets removed; "" when missing
    references: tuple[str, ...]  # References, or In-Reply-To's first id (RFC 5256 §3 REFERENCES), brackets removed, bounded
    is_reply: bool = False  # base subject extraction removed a Re:/Fwd: (RFC 5256 §2.1)
    from_text: str = ""  # the whole decoded From field, unfolded: SEARCH FROM looks here
    to_text: str = ""
    cc_text: str = ""
    bcc_text: str = ""
    sent_zone_minutes: int = 0  # of the Date header, east of UTC: SENTON and its kin compare the date as it was written (RFC 9051 §6.4.4)

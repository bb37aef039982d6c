"""RFC 5322 and MIME, pure: the offset scanner, headers, addresses, dates, and the summary that the store keeps.

Charter: bytes in, values out; never raises on ugly mail, never recurses with the input, every cost bounded by `limits.message`.

| what | file |
|---|---|
| header fields: read, choose, remove, write | `headers`, `words` (RFC 2047, charsets), `parameters` (RFC 2045, RFC 2231) |
| addresses | `addresses` (header lists), `mailboxes` (SMTP paths, the form for look-ups) |
| MIME tree and IMAP sections | `scan`, `sections` |
| what IMAP shows | `envelope`, `structure`, `nstring`, `text` (previews and search text too) |
| sorting and threading | `dates`, `subject`, `threading` |
| all of it, once for each message | `summarize`, `summary` |
| checks at the end of DATA | `validate` |
| what we write ourselves | `compose` |
"""

from __future__ import annotations

from mailpod.message.summarize import summarize
from mailpod.message.summary import Part, Summary

__all__ = ["Part", "Summary", "summarize"]

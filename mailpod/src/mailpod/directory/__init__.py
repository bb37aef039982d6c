"""Who is who: from a configuration (`mailpod.contract`) to look-ups of recipients, senders and credentials.

Charter: pure and immutable; a reload builds a new `Directory` and swaps it. No I/O.
"""

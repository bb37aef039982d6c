"""RFC 5322 and MIME, pure: the offset scanner, headers, addresses, dates, and the summary that the store keeps.

Charter: bytes in, values out; never raises on ugly mail, never recurses with the input, every cost bounded by `limits.message`.
"""

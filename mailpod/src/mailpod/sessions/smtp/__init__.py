"""SMTP sessions: receiving mail for our domains (MX), and submission by our own users. RFC 5321, 6409, 4954, 3207, 2034, 3030, 9422.

Charter: what each command means, and every limit in time and number; bytes come and go through a `Wire`; nothing is parsed here that
`protocol.smtp` parses, nothing is stored that `delivery` does not store.
"""

from mailpod.sessions.smtp.session import SmtpSession
from mailpod.sessions.smtp.shared import MX, SUBMISSION, SUBMISSIONS, Rules, SmtpShared

__all__ = ["MX", "SUBMISSION", "SUBMISSIONS", "Rules", "SmtpSession", "SmtpShared"]

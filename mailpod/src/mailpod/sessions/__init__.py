"""What each command means: SMTP, IMAP and POP3 sessions over the store, without sockets.

Charter: a session is given a `Wire` and a `Services`, and speaks protocol cores' commands; it never sees a transport.
"""

"""POP3 sessions (RFC 1939): what each command means over the store.

Charter: the maildrop is one immutable view of INBOX, taken at login and kept to the end, without a lock: what others expunge stays
readable while the store retains it. DELE changes nothing until QUIT, which is one commit.

| module | what |
|---|---|
| `session` | the session: lines in, commands in order, errors to responses |
| `login` | USER, PASS, AUTH, STLS, UTF8 |
| `maildrop` | the view, deletions, numbering, listings |
| `transfer` | RETR and TOP |
"""

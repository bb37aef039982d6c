"""What each IMAP command means (RFC 9051, RFC 3501 and the extensions of `table`). No sockets, no syntax.

Charter: commands come parsed from `mailpod.protocol.imap`, answers go out through its encoders and `sessions.wire.Wire`; mail is reached
through `store.facade` alone. A client never learns more than a `Reason` of a fault, never gets bytes that differ from what was stored,
and is told of every change in an order that keeps its numbering right. While a session waits, no task of it exists.

| file | what |
|---|---|
| `session` | the loop: one command at a time, answers, errors, timeouts, draining |
| `state` | what a session knows, and the services that command families use |
| `selected`, `news` | the selected folder as the client knows it; telling it what is new |
| `hub` | shared by a pod's sessions: who idles where, one pump and one refresh for many |
| `table` | command → handler; capability → when it is announced |
| `families/` | one file per command family; an extension is a file there and an entry in the table |
"""

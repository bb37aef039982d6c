"""POP3 without I/O (RFC 1939, 2449, 2595, 5034, 6856): lines and commands in, response lines and stuffed text out.

Charter: nothing here knows a mailbox, a socket or a clock; whatever a client sends costs bounded memory.

| module | what |
|---|---|
| `lines` | bytes → command lines, with limits |
| `commands` | a line → verb and checked arguments |
| `responses` | `+OK`, `-ERR [CODE]`, listings |
| `text` | dot stuffing and TOP, piece by piece |
"""

"""The server's half of IMAP4rev1 (RFC 3501) and IMAP4rev2 (RFC 9051) as bytes in, commands out; values in, bytes out.

Charter: no I/O, no mailbox, no policy. `reader.Reader` frames and parses what a client sends, within `limits.imap`; `commands` are what
it hands over; `responses` and `render` make every byte that goes back. What a command means is decided in `mailpod.sessions.imap`.

| file | what |
|---|---|
| `commands`, `search_keys`, `fetch_items` | a struct for every command and its parts |
| `events`, `reader` | incremental framing: lines, literals, what to refuse before it is sent |
| `tokenizer` | a cursor over one command: atoms, strings, lists |
| `grammar/` | one file per command family; `grammar.registry` is the table of names → parser and allowed states |
| `sequence_set`, `mutf7`, `dates`, `sasl` | the small languages within |
| `responses`, `render` | encoders; `render` writes thousands of lines at a time from columns |

An extension is a file in `grammar/`, a struct in `commands`, and an entry in the table.
"""

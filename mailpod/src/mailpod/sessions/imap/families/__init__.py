"""One file per command family. Each exports COMMANDS (struct → `Spec`) and CAPABILITIES; `mailpod.sessions.imap.table` joins them."""

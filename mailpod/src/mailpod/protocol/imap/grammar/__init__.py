"""How commands are written: one file per family, each with a `VERBS` table; `registry` joins the tables.

Charter: from a `Cursor` to a command struct. No state, no answers: a malformed command is a `ParseError`.
"""

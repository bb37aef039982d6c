"""From an accepted envelope to mailboxes: verdicts with named reasons, trace headers, and the way into the store.

Charter: 250 only after the durable PUT; every refusal is a `Reason`; no protocol parsing, no sockets.
"""

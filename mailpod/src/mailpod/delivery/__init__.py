"""From an accepted envelope to mailboxes: who a recipient is, verdicts with named reasons, trace headers, the ordered steps, the store.

Charter: 250 only after the durable PUT; every refusal is a `Reason`; no protocol parsing, no sockets.

The way of a message is `Pipeline.deliver`: its steps (`steps.receive_steps`, `steps.submit_steps`) in order, any of which may refuse or
change the message, then one commit. A new filter is one more step in those lists.
"""

from mailpod.delivery.envelope import Envelope, Job, LocalRecipient
from mailpod.delivery.pipeline import Delivered, Pipeline
from mailpod.delivery.quota import QuotaLedger
from mailpod.delivery.recipients import find_recipient, open_recipient
from mailpod.delivery.steps import Refuse, Step, receive_steps, submit_steps

__all__ = [
    "Delivered",
    "Envelope",
    "Job",
    "LocalRecipient",
    "Pipeline",
    "QuotaLedger",
    "Refuse",
    "Step",
    "find_recipient",
    "open_recipient",
    "receive_steps",
    "submit_steps",
]

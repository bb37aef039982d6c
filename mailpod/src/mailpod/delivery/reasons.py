"""Why delivery refuses, each with its reply (RFC 3463, RFC 5248)."""

from __future__ import annotations

from mailpod.errors import Reason


def _reason(name: str, code: int, enhanced: str, text: str) -> Reason:
    return Reason(name, code, enhanced, "NO", "", "", text)


# --- Recipients ------------------------------------------------------------------------------------------------------------------
UNKNOWN_RECIPIENT = _reason("unknown-recipient", 550, "5.1.1", "No such mailbox here")
RELAY_DENIED = _reason("relay-denied", 550, "5.7.1", "Relaying denied: this is not our domain")
# RFC 5321 §3.6.1: source routes may be refused; % and ! in local parts are how relays used to be asked for.
ROUTED_ADDRESS = _reason("routed-address", 550, "5.7.1", "Relaying denied: routed addresses are not accepted")
OUTGOING_NOT_CONFIGURED = _reason("outgoing-not-configured", 550, "5.7.1", "outgoing mail is not configured")
SUSPENDED = _reason("mailbox-suspended", 550, "5.2.1", "The mailbox is suspended")
TOO_LARGE = _reason("message-too-large", 552, "5.3.4", "Message size exceeds the limit")

# --- Content ---------------------------------------------------------------------------------------------------------------------
TOO_MANY_HOPS = _reason("too-many-hops", 554, "5.4.6", "Too many Received headers: the message is in a loop")
DELIVERY_LOOP = _reason("delivery-loop", 554, "5.4.6", "The message has been delivered to this mailbox before: a loop")
SENDER_NOT_OWNED = _reason("sender-not-owned", 553, "5.7.1", "The sender address does not belong to this login")
FROM_NOT_OWNED = _reason("from-not-owned", 550, "5.7.1", "The From or Sender header does not belong to this login")
FROM_UNREADABLE = _reason("from-unreadable", 550, "5.7.1", "A message needs one From header with a plain address")

# --- Our side --------------------------------------------------------------------------------------------------------------------
DELIVERY_TIMEOUT = _reason("delivery-timeout", 451, "4.3.0", "Mail storage did not answer in time; try again later")
INTERNAL_ERROR = _reason("internal-error", 451, "4.3.0", "Internal error; try again later")

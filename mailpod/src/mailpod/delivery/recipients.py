"""RCPT: from an address to a mailbox of ours, or to the reason why not (RFC 5321 §3.3, §3.6, §4.5.1)."""

from __future__ import annotations

from mailpod.contract import MailboxState
from mailpod.delivery import reasons
from mailpod.delivery.envelope import LocalRecipient
from mailpod.delivery.quota import QuotaLedger
from mailpod.directory.directory import Directory, Match
from mailpod.errors import OVER_QUOTA, Reason
from mailpod.store.facade import MailStore


def find_recipient(directory: Directory, local: str, domain: str, *, submission: bool) -> LocalRecipient | Reason:
    """Decide by the directory alone. `local` and `domain` are normalised; `domain` is "" only for <postmaster>."""
    if not domain:
        # RFC 5321 §4.5.1: <postmaster> without a domain means the server's own.
        if not directory.config.domains:
            return reasons.UNKNOWN_RECIPIENT
        domain = directory.config.domains[0].domain
    found = directory.recipient(local, domain)
    if found is None or found.match is Match.CATCH_ALL:
        if directory.domain(domain) is None:
            return reasons.OUTGOING_NOT_CONFIGURED if submission else reasons.RELAY_DENIED
        # user%elsewhere@ours, elsewhere!user@ours, "user@elsewhere"@ours: not even for a catch-all.
        if any(mark in local for mark in "%!@"):
            return reasons.ROUTED_ADDRESS
        if found is None:
            return reasons.UNKNOWN_RECIPIENT
    if found.mailbox.state is MailboxState.SUSPENDED:
        return reasons.SUSPENDED
    return LocalRecipient(f"{local}@{domain}", found.mailbox, found.domain.max_message_bytes, found.match, found.tag)


async def open_recipient(store: MailStore, quota: QuotaLedger, recipient: LocalRecipient, size: int) -> Reason | None:
    """Open the recipient's account and see whether a message of `size` bytes (0: not known) fits. None: it does.

    Raises `errors.MailError` when the account cannot be opened.
    """
    recipient.account = await store.open(recipient.mailbox.address)
    if await quota.fits_really(recipient.mailbox, recipient.account, size):
        return None
    return OVER_QUOTA

"""Who is over quota: the account's own count, and what is on its way to it through this pod."""

from __future__ import annotations

from mailpod.contract import MailboxConfig
from mailpod.limits import smtp as limits
from mailpod.store.facade import Account


class QuotaLedger:
    """Bytes in flight by account, so that many deliveries at the quota's edge overshoot it by one message at most (per pod)."""

    def __init__(self) -> None:
        self._in_flight: dict[str, int] = {}

    def fits(self, mailbox: MailboxConfig, account: Account, size: int) -> bool:
        """Whether a message of `size` bytes (0: not known yet) fits, by the newest view that this pod has."""
        used = account.view.usage.bytes + self._in_flight.get(mailbox.address, 0)
        return used + size <= mailbox.quota_bytes and used < mailbox.quota_bytes

    async def fits_really(self, mailbox: MailboxConfig, account: Account, size: int) -> bool:
        """The same; a mailbox that looks full may have been emptied through another pod, so the store is asked before saying no."""
        if self.fits(mailbox, account, size):
            return True
        await account.refresh(limits.USAGE_MAX_AGE_FULL_S)
        return self.fits(mailbox, account, size)

    def reserve(self, address: str, size: int) -> None:
        """Count `size` bytes as on their way to the account."""
        self._in_flight[address] = self._in_flight.get(address, 0) + size

    def release(self, address: str, size: int) -> None:
        """They have arrived (the account counts them now) or will not."""
        left = self._in_flight[address] - size
        assert left >= 0
        if left:
            self._in_flight[address] = left
        else:
            del self._in_flight[address]

"""Growing delays after failed logins, by address and by account, in tables of bounded size.

No address is exempt: 127.0.0.0/8 and ::1 may be a proxy or a tunnel that anyone can reach.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import NamedTuple

from mailpod.limits import auth as limits
from mailpod.ports import Clock


def address_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 /64 (a single host has 2^64 addresses to change)."""
    if ":" not in address:
        return address
    try:
        v6 = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if v6.ipv4_mapped is not None:
        return str(v6.ipv4_mapped)
    return v6.packed[:8].hex()


class _Row(NamedTuple):
    failures: int
    last: float  # monotonic seconds of the last failure
    until: float  # monotonic seconds from when the next attempt is allowed


class Throttle:
    """One table. The wait doubles with every failure beyond the free ones, up to `delay_s_max`."""

    def __init__(self, clock: Clock, free_failures: int, delay_s_max: float) -> None:
        self._clock = clock
        self._free = free_failures
        self._delay_s_max = delay_s_max
        self._rows: OrderedDict[str, _Row] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def wait_s(self, key: str) -> float:
        """Seconds until `key` may try again; 0: now."""
        row = self._rows.get(key)
        if row is None:
            return 0.0
        now = self._clock.monotonic()
        if now - row.last >= limits.THROTTLE_FORGET_S:
            del self._rows[key]
            return 0.0
        return max(0.0, row.until - now)

    def failed(self, key: str) -> None:
        """Count a failure."""
        self.wait_s(key)  # forgets what is old
        now = self._clock.monotonic()
        row = self._rows.get(key)
        failures = 1 if row is None else row.failures + 1
        delay = 0.0
        if failures >= self._free:
            # The exponent is bounded before it is used: 2**4000 is a number of its own.
            delay = min(self._delay_s_max, limits.THROTTLE_DELAY_S_MIN * 2.0 ** min(failures - self._free, 40))
        self._rows[key] = _Row(failures, now, now + delay)
        self._rows.move_to_end(key)
        while len(self._rows) > limits.THROTTLE_ENTRIES_MAX:
            self._rows.popitem(last=False)

    def clear(self, key: str) -> None:
        """Forget `key`'s failures."""
        self._rows.pop(key, None)


class Brakes:
    """Both tables, and the addresses that are known to belong to an account's owner."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.addresses = Throttle(clock, limits.ADDRESS_FREE_FAILURES, limits.ADDRESS_DELAY_S_MAX)
        self.accounts = Throttle(clock, limits.ACCOUNT_FREE_FAILURES, limits.ACCOUNT_DELAY_S_MAX)
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()  # (account, address) → monotonic expiry

    def wait_s(self, account: str, address: str) -> float:
        """Seconds until this address may try this account again; 0: now. `address` is an `address_key`."""
        wait = self.addresses.wait_s(address) if self.addresses else 0.0
        if self.accounts and not self.is_known(account, address):
            wait = max(wait, self.accounts.wait_s(account))
        return wait

    def failed(self, account: str, address: str) -> None:
        """Count a failed login. A known owner's mistakes don't lock out his other devices."""
        self.addresses.failed(address)
        if not self.is_known(account, address):
            self.accounts.failed(account)

    def succeeded(self, account: str, address: str) -> None:
        """The owner was here. The address keeps its failures: its next guess may be at somebody else."""
        self.accounts.clear(account)
        key = (account, address)
        self._known[key] = self._clock.monotonic() + limits.KNOWN_ADDRESS_S
        self._known.move_to_end(key)
        while len(self._known) > limits.KNOWN_ADDRESS_ENTRIES_MAX:
            self._known.popitem(last=False)

    def is_known(self, account: str, address: str) -> bool:
        """Whether the account's owner logged in from this address lately."""
        expiry = self._known.get((account, address))
        return expiry is not None and self._clock.monotonic() < expiry

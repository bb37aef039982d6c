"""The account's state machine, as a log sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailpod.store import account_snapshot, operations
from mailpod.store.builder import AccountBuilder
from mailpod.store.requests import Batch
from mailpod.store.state import AccountState


class AccountMachine:
    """See `machine.Machine`."""

    kind = "account"

    def empty(self) -> AccountState:
        """No account yet."""
        return AccountState()

    def begin(self, state: AccountState, seq: int, base: int = 0) -> AccountBuilder:
        """The next entry."""
        return AccountBuilder(state, seq, base)

    def batch(self, builder: AccountBuilder, now: float) -> Batch:
        """What requests are evaluated in."""
        return Batch(builder, now)

    def encode(self, ops: list[Any]) -> bytes:
        """See `operations.encode`."""
        return operations.encode(ops)

    def decode(self, data: bytes) -> Sequence[operations.Operation]:
        """See `operations.decode`."""
        return operations.decode(data)

    def dump(self, state: AccountState) -> list[bytes]:
        """See `account_snapshot.dump`."""
        return account_snapshot.dump(state)

    def load(self, data: memoryview, seq: int, commit: bytes) -> AccountState:
        """See `account_snapshot.load`."""
        return account_snapshot.load(data, seq, commit)

    def starts(self, ops: Sequence[operations.Operation]) -> bool:
        """An erase stands for itself."""
        return len(ops) == 1 and isinstance(ops[0], operations.Erased)


MACHINE = AccountMachine()

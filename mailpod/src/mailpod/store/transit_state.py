"""The state machine of a transit log: who holds it, what is accepted and not yet everywhere."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import zstandard
from crc32c import crc32c

from mailpod.errors import Corrupt, Refused
from mailpod.limits import store as limits
from mailpod.store import columns, numbers
from mailpod.store.builder import count_tail
from mailpod.store.entry import EMPTY_FRAME, NO_ENTRY, Frame
from mailpod.store.reasons import BIG_BELOW_WATERMARK, HOLD_LOST, MOVED, QUEUE_FULL


class _Op(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all."""


class Held(_Op, frozen=True, tag=1):
    """A pod takes the log, or goes on holding it; pod "" lets go."""

    pod: str
    nonce: bytes


class Recipient(_Op, frozen=True):
    """One local recipient, for the incarnation of the account that was there when the message was accepted."""

    account: str
    incarnation: int
    folder: str
    prefix: bytes
    flags: tuple[str, ...]


class Accepted(_Op, frozen=True, tag=2):
    """A message is taken on."""

    index: int  # in the entry
    reverse_path: str
    recipients: tuple[Recipient, ...]
    off: int  # of the body's frame from where the entry's bodies begin; BIG
    length: int
    size: int
    big: str
    pieces: tuple[int, ...]


class Done(_Op, frozen=True, tag=3):
    """These recipients of message (seq, index) have it, or never will."""

    seq: int
    index: int
    recipients: tuple[int, ...]


class TransitReclaimed(_Op, frozen=True, tag=4):
    """Lists what dies: the bodies of `entries`, and `bigs`: all of them are done."""

    entries: bytes
    bigs: tuple[str, ...]
    watermark: str
    executed: int


Operation = Held | Accepted | Done | TransitReclaimed
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[Operation, ...])


class Hold(NamedTuple):
    """Who works the log off. Spares contention and remote duplicates; exactly-once does not rest on it."""

    pod: str
    nonce: bytes
    seq: int  # of the entry that took it


NOBODY: Final = Hold("", b"", 0)


class Item(NamedTuple):
    """An accepted message that is not yet everywhere."""

    reverse_path: str
    recipients: tuple[Recipient, ...]
    remaining: frozenset[int]
    off: int
    length: int
    size: int
    big: str
    pieces: tuple[int, ...]


class TransitState:
    """A transit log at entry `seq`."""

    __slots__ = (
        "big_watermark",
        "commit",
        "executed",
        "hold",
        "pending",
        "reclaims",
        "seq",
        "spent",
        "spent_bigs",
        "tail_bytes",
        "tail_entries",
    )

    def __init__(self) -> None:
        self.seq = 0
        self.commit = NO_ENTRY
        self.hold = NOBODY
        self.pending: dict[tuple[int, int], Item] = {}  # (seq, index), in order of acceptance
        self.spent: tuple[int, ...] = ()  # entries whose messages are all done and whose bodies are still there
        self.spent_bigs: tuple[str, ...] = ()
        self.big_watermark = ""
        self.reclaims: tuple[int, ...] = ()
        self.executed = 0
        self.tail_entries = 0
        self.tail_bytes = 0

    def copy(self) -> TransitState:
        """A value to change."""
        made = TransitState.__new__(TransitState)
        for name in TransitState.__slots__:
            setattr(made, name, getattr(self, name))
        made.pending = dict(self.pending)
        return made

    def done_below(self) -> int:
        """All messages of entries at or below this seq are done."""
        return min((seq for seq, _ in self.pending), default=self.seq + 1) - 1


class TransitBuilder:
    """Applies operations; see `builder.AccountBuilder`."""

    __slots__ = ("base", "operations", "seq", "start", "state")

    def __init__(self, start: TransitState, seq: int, base: int = 0) -> None:
        self.start = start
        self.seq = seq
        self.base = base
        self.state = start.copy()
        self.operations: list[Operation] = []

    def do(self, operation: Operation) -> None:
        """Apply and record."""
        self.apply(operation)
        self.operations.append(operation)

    def apply(self, operation: Operation) -> None:
        """Raises `Corrupt` when the operation contradicts the state."""
        _APPLY[type(operation)](self, operation)

    def finish(self, commit: bytes, operations_bytes: int, base: int | None = None) -> TransitState:
        """The state at `seq`."""
        state = self.state
        if base:
            for key, item in list(state.pending.items()):
                if key[0] == self.seq and item.off != columns.BIG:
                    state.pending[key] = item._replace(off=item.off + base)
        state.seq = self.seq
        state.commit = commit
        count_tail(state, operations_bytes, 16 * len(state.pending))
        return state

    def do_held(self, op: Held) -> None:
        """Apply one."""
        self.state.hold = Hold(op.pod, op.nonce, self.seq)

    def do_accepted(self, op: Accepted) -> None:
        """Apply one."""
        key = (self.seq, op.index)
        if key in self.state.pending or not op.recipients:
            raise Corrupt(f"entry {self.seq}: message {op.index} is there twice")
        off = op.off if op.off == columns.BIG else op.off + self.base
        self.state.pending[key] = Item(
            op.reverse_path, op.recipients, frozenset(range(len(op.recipients))), off, op.length, op.size, op.big, op.pieces
        )

    def do_done(self, op: Done) -> None:
        """Apply one."""
        state = self.state
        key = (op.seq, op.index)
        item = state.pending.get(key)
        if item is None or not item.remaining.issuperset(op.recipients):
            raise Corrupt(f"entry {self.seq}: {op.seq}/{op.index} was done before")
        left = item.remaining.difference(op.recipients)
        if left:
            state.pending[key] = item._replace(remaining=left)
            return
        del state.pending[key]
        if item.big:
            state.spent_bigs = (*state.spent_bigs, item.big)
        if not any(seq == op.seq for seq, _ in state.pending):
            state.spent = (*state.spent, op.seq)

    def do_reclaimed(self, op: TransitReclaimed) -> None:
        """Apply one."""
        state = self.state
        listed = set(numbers.unpack(op.entries).tolist())
        if not listed.issubset(state.spent) or op.watermark < state.big_watermark:
            raise Corrupt(f"entry {self.seq}: reclaims what is not done")
        state.spent = tuple(seq for seq in state.spent if seq not in listed)
        gone = set(op.bigs)
        state.spent_bigs = tuple(big for big in state.spent_bigs if big not in gone)
        state.big_watermark = op.watermark
        state.executed = max(state.executed, op.executed)
        state.reclaims = (*(seq for seq in state.reclaims if seq > op.executed), self.seq)


_APPLY: Final[dict[type, Callable[[TransitBuilder, Any], None]]] = {
    Held: TransitBuilder.do_held,
    Accepted: TransitBuilder.do_accepted,
    Done: TransitBuilder.do_done,
    TransitReclaimed: TransitBuilder.do_reclaimed,
}


# Requests.


class TransitBatch:
    """An entry of a transit log in the making."""

    __slots__ = ("bodies", "body_bytes", "builder", "summaries")

    def __init__(self, builder: TransitBuilder) -> None:
        self.builder = builder
        self.summaries: list[Frame] = []
        self.bodies: list[Frame] = []
        self.body_bytes = 0


class TransitRequest:
    """Base of all: made by one holder, refused under any other's hold."""

    exclusive = False
    weight = 256
    messages = 0

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce

    def check_hold(self, state: TransitState) -> None:
        """Whoever no longer holds the log stops. Raises `Refused`."""
        if state.hold.nonce != self.nonce:
            raise Refused(HOLD_LOST, f"held by {state.hold.pod}")

    def evaluate(self, batch: TransitBatch) -> object:
        """Do it and return the outcome."""
        raise AssertionError("a request evaluates itself")


class Take(TransitRequest):
    """Hold the log, if it is still held as it was when this was decided."""

    def __init__(self, pod: str, nonce: bytes, from_nonce: bytes) -> None:
        super().__init__(nonce)
        self.pod = pod
        self.from_nonce = from_nonce

    def evaluate(self, batch: TransitBatch) -> None:
        """Taken, or renewed."""
        if batch.builder.state.hold.nonce != self.from_nonce:
            raise Refused(HOLD_LOST, f"taken by {batch.builder.state.hold.pod} meanwhile")
        batch.builder.do(Held(self.pod, self.nonce))


class LetGo(TransitRequest):
    """Hold no more, when nothing is left to do."""

    def evaluate(self, batch: TransitBatch) -> None:
        """Let go."""
        self.check_hold(batch.builder.state)
        if not batch.builder.state.pending:
            batch.builder.do(Held("", b""))


class Accept(TransitRequest):
    """Take on a message."""

    messages = 1

    def __init__(
        self, nonce: bytes, reverse_path: str, recipients: tuple[Recipient, ...], body: Frame, size: int, big: str, pieces: tuple[int, ...]
    ) -> None:
        super().__init__(nonce)
        self.reverse_path = reverse_path
        self.recipients = recipients
        self.body = body
        self.size = size
        self.big = big
        self.pieces = pieces
        self.weight = 256 + len(body.data) + sum(96 + len(one.account) + len(one.folder) + len(one.prefix) for one in recipients)

    def evaluate(self, batch: TransitBatch) -> tuple[int, int]:
        """(seq, index) of the message."""
        state = batch.builder.state
        self.check_hold(state)
        if len(state.pending) >= limits.TRANSIT_PENDING_MAX:
            raise Refused(QUEUE_FULL, "transit")
        if self.big and self.big <= state.big_watermark:
            raise Refused(BIG_BELOW_WATERMARK)
        index = len(batch.bodies)
        off = columns.BIG if self.big else batch.body_bytes
        length = 16 + len(self.body.data)
        batch.builder.do(Accepted(index, self.reverse_path, self.recipients, off, length, self.size, self.big, self.pieces))
        batch.summaries.append(EMPTY_FRAME)
        batch.bodies.append(self.body)
        batch.body_bytes += length
        return batch.builder.seq, index


class MarkDone(TransitRequest):
    """After recipients have a message."""

    def __init__(self, nonce: bytes, seq: int, index: int, recipients: Sequence[int]) -> None:
        super().__init__(nonce)
        self.seq = seq
        self.index = index
        self.recipients = recipients

    def evaluate(self, batch: TransitBatch) -> None:
        """Done; what was done before is left out."""
        state = batch.builder.state
        self.check_hold(state)
        item = state.pending.get((self.seq, self.index))
        fresh = () if item is None else tuple(sorted(item.remaining.intersection(self.recipients)))
        if fresh:
            batch.builder.do(Done(self.seq, self.index, fresh))


class ReclaimTransit(TransitRequest):
    """List bodies of done messages as dead. What is done stays done, so entries that came meanwhile do not matter."""

    exclusive = True

    def __init__(self, nonce: bytes, listed: TransitReclaimed) -> None:
        super().__init__(nonce)
        self.listed = listed

    def evaluate(self, batch: TransitBatch) -> int:
        """The reclaim's seq."""
        state = batch.builder.state
        self.check_hold(state)
        referred = {item.big for item in state.pending.values()}
        if self.listed.watermark < state.big_watermark or referred.intersection(self.listed.bigs):
            raise Refused(MOVED)  # another reclaim, or an upload that is referred to only now
        if not set(numbers.unpack(self.listed.entries).tolist()) <= set(state.spent):
            raise Refused(MOVED)
        batch.builder.do(self.listed)
        return batch.builder.seq


# Snapshots.


class _Head(msgspec.Struct, array_like=True):
    hold: tuple[str, bytes, int]
    pending: tuple[tuple[int, int, str, tuple[Recipient, ...], tuple[int, ...], int, int, int, str, tuple[int, ...]], ...]
    spent: tuple[int, ...]
    spent_bigs: tuple[str, ...]
    big_watermark: str
    reclaims: tuple[int, ...]
    executed: int
    tail_entries: int
    tail_bytes: int


_HEAD_DECODER = msgspec.msgpack.Decoder(_Head)
_BLOCK: Final = struct.Struct("<III")


class TransitMachine:
    """See `machine.Machine`."""

    kind = "transit"

    def empty(self) -> TransitState:
        """Never used."""
        return TransitState()

    def begin(self, state: TransitState, seq: int, base: int = 0) -> TransitBuilder:
        """The next entry."""
        return TransitBuilder(state, seq, base)

    def batch(self, builder: TransitBuilder, now: float) -> TransitBatch:
        """What requests are evaluated in; transit needs no clock."""
        return TransitBatch(builder)

    def encode(self, ops: list[Any]) -> bytes:
        """Operations as they lie in an entry."""
        return _ENCODER.encode(ops)

    def decode(self, data: bytes) -> Sequence[Operation]:
        """Raises `Corrupt`."""
        try:
            return _DECODER.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Corrupt(f"operations: {error}") from None

    def starts(self, ops: Sequence[Any]) -> bool:
        """Transit logs are never erased."""
        return False

    def dump(self, state: TransitState) -> list[bytes]:
        """One block."""
        pending = tuple(
            (
                seq,
                index,
                item.reverse_path,
                item.recipients,
                tuple(sorted(item.remaining)),
                item.off,
                item.length,
                item.size,
                item.big,
                item.pieces,
            )
            for (seq, index), item in state.pending.items()
        )
        head = _Head(
            (state.hold.pod, state.hold.nonce, state.hold.seq),
            pending,
            state.spent,
            state.spent_bigs,
            state.big_watermark,
            state.reclaims,
            state.executed,
            state.tail_entries,
            state.tail_bytes,
        )
        raw = msgspec.msgpack.encode(head)
        data = zstandard.ZstdCompressor(level=1).compress(raw)
        return [_BLOCK.pack(len(raw), len(data), crc32c(data)), data]

    def load(self, data: memoryview, seq: int, commit: bytes) -> TransitState:
        """The reverse of `dump`. Raises `Corrupt`."""
        if len(data) < _BLOCK.size:
            raise Corrupt(f"snapshot {seq}: short")
        raw_bytes, stored, crc = _BLOCK.unpack_from(data)
        packed = bytes(data[_BLOCK.size :])
        if len(packed) != stored or crc32c(packed) != crc or raw_bytes > limits.SNAPSHOT_BYTES_MAX:
            raise Corrupt(f"snapshot {seq}: checksum")
        try:
            head = _HEAD_DECODER.decode(zstandard.ZstdDecompressor().decompress(packed, max_output_size=raw_bytes))
        except (zstandard.ZstdError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Corrupt(f"snapshot {seq}: {error}") from None
        state = TransitState()
        state.seq = seq
        state.commit = commit
        state.hold = Hold(*head.hold)
        for at, index, reverse_path, recipients, remaining, off, length, size, big, pieces in head.pending:
            state.pending[at, index] = Item(reverse_path, recipients, frozenset(remaining), off, length, size, big, pieces)
        for field in ("spent", "spent_bigs", "big_watermark", "reclaims", "executed", "tail_entries", "tail_bytes"):
            setattr(state, field, getattr(head, field))
        return state


MACHINE: Final = TransitMachine()

"""What the SMTP sessions of a pod share: rules of each port, memory for bodies, brakes on guessing, metrics."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, NamedTuple

from prometheus_client import Counter

from mailpod import telemetry
from mailpod.contract import MailboxConfig
from mailpod.delivery import Pipeline, QuotaLedger, receive_steps, submit_steps
from mailpod.errors import Reason
from mailpod.limits import smtp as limits
from mailpod.ports import Clock
from mailpod.sessions.services import Services


class Rules(NamedTuple):
    """What sets one listener apart."""

    protocol: str  # telemetry label
    submission: bool  # users of ours send (RFC 6409); else other servers deliver to us
    implicit_tls: bool = False  # RFC 8314 §3.3


MX: Final = Rules("smtp", submission=False)
SUBMISSION: Final = Rules("submission", submission=True)
SUBMISSIONS: Final = Rules("submissions", submission=True, implicit_tls=True)


class BodyBudget:
    """Bytes of message bodies in memory, all sessions together."""

    def __init__(self, limit_bytes: int = limits.BODIES_IN_FLIGHT_BYTES_MAX) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def fits(self, size: int) -> bool:
        """Whether `size` bytes more would fit now."""
        return self.used_bytes + size <= self.limit_bytes

    def take(self, size: int) -> bool:
        """Count `size` bytes more; False: they do not fit, and are not counted."""
        if self.used_bytes + size > self.limit_bytes:
            return False
        self.used_bytes += size
        return True

    def give_back(self, size: int) -> None:
        """They are not in memory any more."""
        self.used_bytes -= size
        assert self.used_bytes >= 0


class GuessBrake:
    """Unknown recipients by client address, fading with time: slows who walks through a dictionary, over any number of connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address → (count, when)

    def missed(self, address: str) -> float:
        """One more unknown recipient; returns for how many seconds its answer is to be held back."""
        now = self._clock.monotonic()
        count, when = self._counts.pop(address, (0.0, now))
        count = count * math.exp2((when - now) / limits.UNKNOWN_RECIPIENTS_HALF_LIFE_S) + 1
        self._counts[address] = (count, now)
        if len(self._counts) > limits.UNKNOWN_RECIPIENTS_PEERS_MAX:
            self._counts.popitem(last=False)
        over = count - limits.UNKNOWN_RECIPIENTS_FREE
        return min(max(0.0, over) * limits.UNKNOWN_RECIPIENT_DELAY_STEP_S, limits.UNKNOWN_RECIPIENT_DELAY_MAX_S)


class UsageNotes:
    """How full mailboxes were a moment ago, so that RCPT needs no look at the account while there is plenty of room.

    Only ever used to say yes: the delivery itself looks at the account.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._notes: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address → (bytes used, when)

    def note(self, address: str, used_bytes: int) -> None:
        """The account's count, read just now."""
        self._notes.pop(address, None)
        self._notes[address] = (used_bytes, self._clock.monotonic())
        if len(self._notes) > limits.USAGE_NOTES_MAX:
            self._notes.popitem(last=False)

    def surely_fits(self, mailbox: MailboxConfig, size: int) -> bool:
        """Whether there is a fresh note that says that `size` bytes fit with room to spare."""
        noted = self._notes.get(mailbox.address)
        if noted is None or self._clock.monotonic() - noted[1] > limits.USAGE_NOTE_AGE_S:
            return False
        return noted[0] + size < mailbox.quota_bytes * limits.USAGE_NOTE_SHARE


class Meters:
    """Metric children of one protocol, each looked up once."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self._replies: dict[tuple[int, str], Counter] = {}
        self._commands: dict[tuple[str, str], Counter] = {}

    def reply(self, code: int, reason: str = "") -> None:
        """Count a reply; `reason` names a refusal."""
        child = self._replies.get((code, reason))
        if child is None:
            child = self._replies[code, reason] = telemetry.REPLIES.labels(self.protocol, str(code), reason)
        child.inc()

    def command(self, verb: str, code: int) -> None:
        """Count a command by the class of its reply. `verb` is one that we know, or "other"."""
        result = _RESULTS[code // 100]
        child = self._commands.get((verb, result))
        if child is None:
            child = self._commands[verb, result] = telemetry.COMMANDS.labels(self.protocol, verb, result)
        child.inc()


_RESULTS: Final = ("", "", "ok", "ok", "tempfail", "permfail")


class SmtpShared:
    """One per pod."""

    def __init__(self, services: Services, budget: BodyBudget | None = None) -> None:
        self.services = services
        self.bodies = budget or BodyBudget()
        self.guesses = GuessBrake(services.clock)
        self.quota = QuotaLedger()
        self.usage = UsageNotes(services.clock)
        self._receive = Pipeline(services, self.quota, receive_steps())
        self._submit = Pipeline(services, self.quota, submit_steps())
        self._meters: dict[str, Meters] = {}

    def pipeline(self, rules: Rules) -> Pipeline:
        """The way of a message that comes in by these rules."""
        return self._submit if rules.submission else self._receive

    def meters(self, rules: Rules) -> Meters:
        """The metrics of these rules' protocol."""
        meters = self._meters.get(rules.protocol)
        if meters is None:
            meters = self._meters[rules.protocol] = Meters(rules.protocol)
        return meters

    def message_bytes_max(self) -> int:
        """The largest message that any domain takes, for SIZE in EHLO; each recipient's domain has its own."""
        return max((domain.max_message_bytes for domain in self.services.directory.config.domains), default=0)


def smtp_answer(reason: Reason) -> Reason:
    """The reason itself; one that has no SMTP code (an IMAP-only one from the store) becomes a temporary failure of ours."""
    return reason if 400 <= reason.smtp_code <= 599 else reason._replace(smtp_code=451, smtp_enhanced="4.3.0")

"""A message's way: steps, quota, one commit; a verdict with a named reason, one log line, metrics. Never a success before the store's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from mailpod import telemetry
from mailpod.delivery import reasons
from mailpod.delivery.envelope import Envelope, Job, LocalRecipient, folder_for
from mailpod.delivery.quota import QuotaLedger
from mailpod.delivery.steps import Refuse, Step
from mailpod.delivery.trace import DateCache, delivery_prefix, received
from mailpod.directory.directory import Directory
from mailpod.errors import ACCOUNT_CLOSED, OVER_QUOTA, MailError, Refused
from mailpod.limits import smtp as limits
from mailpod.ports import Clock, Entropy
from mailpod.store.facade import Account, MailStore
from mailpod.store.types import NewMessage, TransitMessage, TransitRecipient

_log: Final = structlog.get_logger(__name__)
_DELIVERED: Final = telemetry.DELIVERIES.labels("delivered", "")


class DeliveryServices(Protocol):
    """What delivery needs of a pod: `sessions.services.Services` has it. `directory` is replaced on reload."""

    hostname: str
    store: MailStore
    directory: Directory
    clock: Clock
    entropy: Entropy


class Delivered(NamedTuple):
    """The message is durable. `queue_id` names the commit: the account's entry, or the transit log's."""

    queue_id: str


class Pipeline:
    """One for each kind of listener; shared by all sessions."""

    def __init__(self, services: DeliveryServices, quota: QuotaLedger, steps: Sequence[Step]) -> None:
        self._services = services
        self._quota = quota
        self.steps = tuple(steps)
        self._dates = DateCache(services.clock)

    async def deliver(self, envelope: Envelope, raw: bytes) -> Delivered | Refuse:
        """Take the message through all steps and commit it for all recipients, or for none.

        Bounded in time, raises nothing but CancelledError. A cancelled or timed out delivery may still land: the client was not told 250
        and sends it again, so it can come double but is never lost.
        """
        started = self._services.clock.monotonic()
        now, date = self._dates.now()
        job = Job(envelope, raw, self._services.entropy, now, date, self._services.hostname)
        try:
            async with asyncio.timeout(limits.DELIVERY_TIMEOUT_S):
                outcome = await self._deliver(job)
        except MailError as error:
            outcome = Refuse(error.reason, error.detail)
        except TimeoutError:
            outcome = Refuse(reasons.DELIVERY_TIMEOUT)
        except Exception as error:  # noqa: BLE001 -- a fault of ours costs this message a 451, not the session, and is logged
            _log.exception("delivery-fault", session=envelope.session_id, message=envelope.id)
            outcome = Refuse(reasons.INTERNAL_ERROR, type(error).__name__)
        self._report(job, outcome, self._services.clock.monotonic() - started)
        return outcome

    async def _deliver(self, job: Job) -> Delivered | Refuse:
        directory = self._services.directory
        for step in self.steps:
            verdict = await step.run(job, directory)
            if verdict is not None:
                return verdict
        try:
            return await self._commit(job)
        except Refused as error:
            if error.reason is not ACCOUNT_CLOSED:
                raise
        # Another pod erased an account, and somebody made it again, since this pod opened it: the mail is for the new one. What is not
        # in the directory any more was erased for good; opening it would make it anew.
        for recipient in job.envelope.recipients:
            if self._services.directory.mailbox(recipient.mailbox.address) is None:
                return Refuse(ACCOUNT_CLOSED, recipient.address)
            recipient.account = None
        return await self._commit(job)

    async def _commit(self, job: Job) -> Delivered | Refuse:
        recipients = job.envelope.recipients
        # Everything that we add stands above what came, the newest on top (RFC 5321 §4.4).
        shared = [received(job.envelope, job.hostname, job.date), *job.buffers()]
        size = sum(map(len, shared))
        reserved: list[str] = []
        try:
            for recipient in recipients:
                account = recipient.account
                if account is None:
                    account = recipient.account = await self._services.store.open(recipient.mailbox.address)
                if not await self._quota.fits_really(recipient.mailbox, account, size):
                    # One reply stands for all recipients. Nothing has been written, so the client keeps the message for all of them.
                    return Refuse(OVER_QUOTA, recipient.address)
                self._quota.reserve(recipient.mailbox.address, size)
                reserved.append(recipient.mailbox.address)
            if len(recipients) == 1:
                return await self._append(job, recipients[0], shared)
            return await self._transit(job, shared)
        finally:
            for address in reserved:
                self._quota.release(address, size)

    async def _append(self, job: Job, recipient: LocalRecipient, shared: list[bytes]) -> Delivered:
        """One recipient: one commit to the mailbox itself."""
        account = recipient.account
        assert account is not None
        prefix = delivery_prefix(job.envelope, recipient)
        message = NewMessage((prefix, *shared), internaldate=int(job.now))
        try:
            return await self._append_to(account, folder_for(account, recipient.tag), message, recipient.mailbox.quota_bytes)
        except Refused as error:
            if not recipient.tag or error.reason.name != "no-such-folder":
                raise
        # The folder that the tag names went away in this moment.
        return await self._append_to(account, folder_for(account, ""), message, recipient.mailbox.quota_bytes)

    @staticmethod
    async def _append_to(account: Account, folder: tuple[int, str], message: NewMessage, quota_bytes: int) -> Delivered:
        # The quota again, at the commit: what other pods add meanwhile is seen there only.
        appended = await account.append(folder[0], (message,), quota_bytes=quota_bytes)
        return Delivered(str(appended.modseq))

    async def _transit(self, job: Job, shared: list[bytes]) -> Delivered:
        """Several: durable once for all, then applied to each exactly once."""
        recipients = []
        for recipient in job.envelope.recipients:
            assert recipient.account is not None
            folder = folder_for(recipient.account, recipient.tag)[1]
            recipients.append(TransitRecipient(recipient.mailbox.address, folder, delivery_prefix(job.envelope, recipient)))
        message = TransitMessage(shared, job.envelope.reverse_path, tuple(recipients))
        return Delivered(await self._services.store.accept(message))

    def _report(self, job: Job, outcome: Delivered | Refuse, seconds: float) -> None:
        envelope = job.envelope
        count = len(envelope.recipients)
        common = {
            "session": envelope.session_id,
            "message": envelope.id,
            "protocol": envelope.protocol,
            "peer": envelope.client.address,
            "sender": envelope.reverse_path,
            "recipients": count,
            "message_id": job.message_id,
            "bytes": len(job.raw),
            "seconds": round(seconds, 4),
        }
        if count == 1:
            common["account"] = envelope.recipients[0].mailbox.address
        telemetry.DELIVERY_SECONDS.observe(seconds)
        if isinstance(outcome, Delivered):
            _DELIVERED.inc(count)
            telemetry.MESSAGE_BYTES.observe(len(job.raw))
            _log.info("message", queue_id=outcome.queue_id, reason="", **common)
        else:
            telemetry.DELIVERIES.labels("refused", outcome.reason.name).inc(count)
            _log.info("message", queue_id="", reason=outcome.reason.name, detail=outcome.detail, **common)

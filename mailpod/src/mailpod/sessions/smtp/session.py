"""One SMTP session: what the client sends, turned into commands one at a time, and replies, written together.

Nothing runs while the client thinks: a task exists only while a command waits for the store, the authenticator or a delay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from mailpod.auth.sasl import SaslExchange
from mailpod.contract import MailboxConfig
from mailpod.delivery import Envelope, Refuse
from mailpod.delivery import reasons as delivery_reasons
from mailpod.errors import SHUTTING_DOWN, Reason
from mailpod.limits import smtp as limits
from mailpod.protocol.smtp import (
    ChunkReader,
    DataReader,
    Fixed,
    InputReader,
    MailCommand,
    Reply,
    encode,
    encode_reason,
    split_command,
)
from mailpod.protocol.smtp import reasons as syntax
from mailpod.sessions.services import Services
from mailpod.sessions.smtp import reasons
from mailpod.sessions.smtp.authentication import continuation
from mailpod.sessions.smtp.commands import COMMANDS, greeting
from mailpod.sessions.smtp.shared import Rules, SmtpShared
from mailpod.sessions.smtp.transaction import Answer, Result, Transaction
from mailpod.sessions.wire import Wire

_log: Final = structlog.get_logger(__name__)

# Commands that have bounds of their own; QUIT needs none.
_MOVES_MAIL: Final = frozenset({"MAIL", "RCPT", "DATA", "BDAT", "QUIT"})

ContentDone = Callable[["SmtpSession", "DataReader | ChunkReader", "Reason | None"], Result]


class SmtpSession:
    """`sessions.wire.Session` for SMTP; `sweep` is its clock."""

    idle_timeout_s = limits.COMMAND_TIMEOUT_S

    def __init__(self, wire: Wire, shared: SmtpShared, rules: Rules, *, starttls: bool) -> None:
        """`starttls`: the connection can start TLS, so it is offered while there is none."""
        self.wire = wire
        self.shared = shared
        self.rules = rules
        self.starttls = starttls
        self.services: Services = shared.services
        self.helo: str | None = None
        self.esmtp = False
        self.login: MailboxConfig | None = None
        self.exchange: SaslExchange | None = None  # an AUTH in progress: the next line is its
        self.transaction: Transaction | None = None
        self.transactions = 0
        self.messages = 0
        self.auth_failures = 0
        self.unknown_recipients = 0
        self.last_chunk = False  # the BDAT chunk being read is the last
        self._meters = shared.meters(rules)
        self._input = InputReader()
        self._waiting: list[bytes] = []  # input that came while a command runs
        self._waiting_bytes = 0
        self._out: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._verb = "other"
        self._content: DataReader | ChunkReader | None = None
        self._content_done: ContentDone | None = None
        self._content_refusal: Reason | None = None
        self._content_bytes = 0
        self._errors = 0
        self._idle_commands = 0
        self._eof = False
        self._closing = False
        self._closing_reason: Reason | None = None
        self._close_after = False
        self._draining = False
        self._began = self._heard = self._content_began = shared.services.clock.monotonic()

    # --- What the connection calls ---------------------------------------------------------------------------------------------

    @property
    def account_address(self) -> str | None:
        """Whose mailbox is logged in."""
        return self.login.address if self.login is not None else None

    def begin(self) -> None:
        """Greet (RFC 5321 §4.3.1)."""
        self.say(greeting(self.services.hostname), 220)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client, in pieces of any size."""
        if self._closing:
            return
        self._heard = self.services.clock.monotonic()
        if self._task is not None:
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._waiting_bytes > limits.PENDING_INPUT_BYTES_MAX:
                self.wire.pause_reading()
            return
        self._input.feed(data)
        self._pump()

    def eof_received(self) -> None:
        """The client sends no more; what it has sent whole is still answered."""
        self._eof = True
        if self._task is None:
            self._close()

    def sweep(self, now: float, *, pressed: bool) -> None:
        """End the session if it has been idle, slow or open for too long. `now`: `Clock.monotonic`; `pressed`: sessions are scarce."""
        if self._closing or self._task is not None:
            return
        reason = self._slow(now) if self._content is not None else self._idle(now, pressed=pressed)
        if reason is not None:
            self.close_for(reason)

    def timed_out(self) -> None:
        """`sessions.wire.Session`: idle for longer than `idle_timeout_s`."""
        if not self._closing and self._task is None:
            self.close_for(reasons.IDLE)

    def shut_down(self) -> None:
        """The pod drains (RFC 5321 §3.8): at once where nothing is under way, else as soon as it is finished."""
        self._draining = True
        if not self._closing and self._task is None and self._content is None:
            self.close_for(SHUTTING_DOWN)

    def close_for(self, reason: Reason) -> None:
        """Tell the client why and close. A message whose end has come is not interrupted: the session ends after its answer."""
        if self._closing:
            return
        if self._task is not None:
            self._close_after, self._closing_reason = True, reason
            return
        self._farewell(reason)
        self._close()

    def connection_lost(self) -> None:
        """The client is gone: stop what runs, let go of memory."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
        self._drop_content()
        self.end_transaction()
        self.exchange = None

    # --- What commands call ----------------------------------------------------------------------------------------------------

    @property
    def input_pending(self) -> bool:
        """More bytes have come behind the command that is being handled."""
        return self._input.pending > 0 or self._waiting_bytes > 0

    def begin_transaction(self, envelope: Envelope, command: MailCommand) -> None:
        """MAIL has been accepted."""
        self.transaction = Transaction(envelope, command.body, command.size or 0)
        self._idle_commands = 0

    def end_transaction(self) -> None:
        """The message is done with, one way or the other (RFC 5321 §4.1.4: buffers cleared)."""
        if self.transaction is not None:
            self.shared.bodies.give_back(self.transaction.held)
            self.transaction = None

    def expect(self, reader: DataReader | ChunkReader, done: ContentDone, *, refusal: Reason | None = None, last: bool = False) -> None:
        """What comes next is content. `done` is called when all of it has come; a `refusal` is its answer whatever it is."""
        self._content, self._content_done, self._content_refusal = reader, done, refusal
        self.last_chunk = last
        self._content_began, self._content_bytes = self._heard, 0

    def logged_in(self, mailbox: MailboxConfig) -> None:
        """AUTH has succeeded."""
        self.login = mailbox
        self._idle_commands = 0

    def close_after_reply(self, reason: Reason | None = None) -> None:
        """Close when the command being handled has been answered; `reason` is said after that answer."""
        self._close_after = True
        self._closing_reason = reason

    def flush(self) -> None:
        """Write all replies so far: as one, because a client that pipelines reads them as one (RFC 2920 §3.2)."""
        if self._out:
            self.wire.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
            self._out.clear()

    def reset(self) -> None:
        """RFC 5321 §4.1.4: EHLO and RSET abort the transaction."""
        self.end_transaction()

    async def start_tls(self) -> None:
        """RFC 3207 §4.2: whatever came in plaintext behind STARTTLS is thrown away, and all that is known of the client forgotten."""
        self.flush()
        discarded = self._input.discard() + self._waiting_bytes
        self._waiting.clear()
        self._waiting_bytes = 0
        if discarded:
            _log.warning("plaintext-behind-starttls", session=self.wire.session_id, peer=self.wire.peer.address, bytes=discarded)
        self.end_transaction()
        self.helo, self.esmtp, self.login, self.exchange = None, False, None, None
        await self.wire.start_tls()

    # --- The pump --------------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Handle what has come, until it is used up or a command has to wait."""
        while self._task is None and not self._closing:
            if self._content is not None:
                # A chunk of no bytes is complete before anything has come.
                if not self._read_content(self._content):
                    break
            elif not self._read_line():
                break
        if self._task is None:
            self.flush()
            if self._eof:
                self._close()
            elif self.wire.congested and not self._closing:
                # The client sends commands and reads no replies: stop reading until it does.
                self._spawn(self._drain_output())

    async def _drain_output(self) -> Answer:
        self.wire.pause_reading()
        try:
            await self.wire.drained()
        finally:
            self.wire.resume_reading()
        return None

    def _read_line(self) -> bool:
        """Handle one line; False: none is complete."""
        # Only AUTH and its exchange may be long, and which command a line is, is known when it is there.
        line = self._input.line(limits.AUTH_LINE_BYTES_MAX if self.rules.submission else limits.COMMAND_LINE_BYTES_MAX)
        if line is None:
            if self._input.overrun:
                self.close_for(reasons.LINE_OVERRUN)
            return False
        if self.exchange is not None:
            self._verb = "AUTH"
            self._conclude(continuation(self, self.exchange, line))
        elif isinstance(line, Reason):
            self._verb = "other"
            self._conclude(line)
        else:
            self._command(line)
        return True

    def _command(self, line: bytes) -> None:
        verb, argument = split_command(line)
        handler = COMMANDS.get(verb)
        if handler is None:
            self._verb = "other"
            self._conclude(syntax.UNKNOWN_COMMAND)
            return
        self._verb = verb
        if len(line) + 2 > limits.COMMAND_LINE_BYTES_MAX and verb != "AUTH":
            self._conclude(syntax.LINE_TOO_LONG)
            return
        if verb not in _MOVES_MAIL:
            self._idle_commands += 1
            if self._idle_commands > limits.IDLE_COMMANDS_MAX:
                self._conclude(reasons.TOO_MANY_COMMANDS)
                return
        self._conclude(handler(self, argument))

    def _read_content(self, content: DataReader | ChunkReader) -> bool:
        """Hand the content what is its own; False: more has to come."""
        if not content.done:
            taken = self._input.content(content) if self._input.pending else 0
            if taken:
                self._account_for(content, taken)
            if not content.done:
                return False
        done, refusal = self._content_done, self._content_refusal
        assert done is not None
        self._drop_content()
        self._conclude(done(self, content, refusal))
        return True

    def _account_for(self, content: DataReader | ChunkReader, taken: int) -> None:
        """Count content in memory; too much of it, or too much of a message that is refused anyway, ends here."""
        transaction = self.transaction
        self._content_bytes += taken
        if isinstance(content, DataReader):
            keeping = not content.oversize
            if content.overrun:
                self.close_for(reasons.OVERSIZE_OVERRUN)
        else:
            keeping = content.keep
        if transaction is None:
            return
        if keeping and self.shared.bodies.take(taken):
            transaction.held += taken
        elif keeping:
            content.abandon()
            self._content_refusal = reasons.BUSY_MEMORY
        if not keeping or self._content_refusal is not None:
            transaction.chunks.clear()
            self.shared.bodies.give_back(transaction.held)
            transaction.held = 0

    def _drop_content(self) -> None:
        self._content = self._content_done = self._content_refusal = None

    # --- Answers ---------------------------------------------------------------------------------------------------------------

    def _conclude(self, result: Result) -> None:
        """Answer now, or when what the command waits for has come."""
        if isinstance(result, Coroutine):
            self._spawn(result)
        else:
            self.answer(result)

    def _spawn(self, work: Coroutine[Any, Any, Answer]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = await work
        except asyncio.CancelledError:
            self._task = None
            self._close()
            raise
        except ConnectionError:
            # The connection is gone, or is being closed by us, as after a TLS handshake that failed. Nobody waits for this task.
            self._task = None
            self._close()
            return
        except Exception as error:  # noqa: BLE001 -- a fault of ours costs this command a 451, not the pod, and is logged
            _log.exception("command-fault", session=self.wire.session_id, command=self._verb)
            answer = Refuse(delivery_reasons.INTERNAL_ERROR, type(error).__name__)
        self._task = None
        if self._closing:
            return
        self.answer(answer)
        self._resume()

    def _resume(self) -> None:
        """Go on with what came meanwhile."""
        self._heard = self.services.clock.monotonic()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            if self._waiting_bytes > limits.PENDING_INPUT_BYTES_MAX:
                self.wire.resume_reading()
            self._waiting_bytes = 0
            self._input.feed(b"".join(waiting))
        self._pump()

    def answer(self, answer: Answer) -> None:
        """Queue the reply to the command being handled; None: it has had its reply."""
        if answer is None:
            pass
        elif isinstance(answer, Fixed):
            self.say(answer.line, answer.code)
            self._meters.command(self._verb, answer.code)
        elif isinstance(answer, Reply):
            self.say(encode(answer), answer.code)
            self._meters.command(self._verb, answer.code)
        elif isinstance(answer, Refuse):
            self._refuse(answer.reason, answer.detail)
        else:
            self._refuse(answer, "")
        if self._close_after or (self._draining and self._content is None and not self._closing):
            if self._closing_reason is not None or not self._close_after:
                self._farewell(self._closing_reason or SHUTTING_DOWN)
            self._close()

    def say(self, line: bytes, code: int, reason: str = "") -> None:
        """Queue a reply that is already encoded, and count it."""
        self._out.append(line)
        self._meters.reply(code, reason)

    def _refuse(self, reason: Reason, detail: str) -> None:
        self.say(encode_reason(reason), reason.smtp_code, reason.name)
        self._meters.command(self._verb, reason.smtp_code)
        _log.info(
            "refused",
            session=self.wire.session_id,
            protocol=self.rules.protocol,
            peer=self.wire.peer.address,
            command=self._verb,
            code=reason.smtp_code,
            reason=reason.name,
            detail=detail,
        )
        if reason.smtp_code == 421:
            # RFC 5321 §3.8: 421 says that the connection is being closed.
            self._close()
        elif reason.smtp_enhanced.startswith("5.5"):
            self._errors += 1
            if self._errors >= limits.ERRORS_MAX and not self._closing:
                self._refuse(reasons.TOO_MANY_ERRORS, "")

    def _farewell(self, reason: Reason) -> None:
        """An answer that the client did not ask for: 421, or the reason's own code if it says that it closes."""
        if reason.smtp_code != 421:
            reason = reason._replace(smtp_code=421, smtp_enhanced="4" + reason.smtp_enhanced[1:])
        self._verb = "other"
        self._refuse(reason, "")

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._drop_content()
            self.end_transaction()
            self.flush()
            self.wire.close()

    # --- Time ------------------------------------------------------------------------------------------------------------------

    def _slow(self, now: float) -> Reason | None:
        """RFC 5321 §4.5.3.2.5 between blocks; and on average, so that a byte a minute does not hold a session for ever."""
        if now - self._heard > limits.DATA_BLOCK_TIMEOUT_S:
            return reasons.IDLE
        lasted = now - self._content_began
        if lasted > limits.DATA_GRACE_S and self._content_bytes < lasted * limits.DATA_BYTES_PER_S_MIN:
            return reasons.TOO_SLOW
        return None

    def _idle(self, now: float, *, pressed: bool) -> Reason | None:
        if pressed:
            timeout_s = limits.COMMAND_TIMEOUT_PRESSED_S
        elif self.transactions or self.login is not None:
            timeout_s = limits.COMMAND_TIMEOUT_S
        else:
            timeout_s = limits.FIRST_COMMAND_TIMEOUT_S
        if now - self._heard > timeout_s:
            return reasons.IDLE
        lifetime_s = limits.SESSION_LIFETIME_S if self.transaction is None else 2 * limits.SESSION_LIFETIME_S
        if now - self._began > lifetime_s:
            return reasons.LIFETIME
        return None

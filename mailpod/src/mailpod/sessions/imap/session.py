"""One IMAP connection: commands one at a time and in order, their answers, and every way in which the connection may end."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from mailpod import telemetry
from mailpod.contract import MailboxConfig
from mailpod.errors import ACCOUNT_CLOSED, SHUTTING_DOWN, Corrupt, MailError, Reason
from mailpod.limits import imap_session as limits
from mailpod.protocol.imap import responses
from mailpod.protocol.imap.events import AppendLiteral, Command, ContinuationNeeded, Event, Fatal, Line, Rejected
from mailpod.protocol.imap.reader import Reader
from mailpod.protocol.imap.states import State
from mailpod.sessions.imap import answers
from mailpod.sessions.imap.answers import Answer, bad
from mailpod.sessions.imap.capabilities import announced
from mailpod.sessions.imap.families.appending import decide_literal
from mailpod.sessions.imap.families.idling import end_idle
from mailpod.sessions.imap.hub import Hub
from mailpod.sessions.imap.state import ImapState, Spec, Tell
from mailpod.sessions.imap.table import CAPABILITIES, COMMANDS
from mailpod.sessions.services import Services
from mailpod.sessions.wire import Wire
from mailpod.store.facade import Account

log = structlog.get_logger(__name__)

# IDLE's tagged answer is the end of the client's waiting, not of our work: it has no duration worth a metric.
_NO_DURATION: Final = frozenset({"IDLE"})


class ImapSession(ImapState):
    """`sessions.wire.Session` for IMAP. While it waits for the client it is this object and nothing else: no task, no timer."""

    __slots__ = ("_draining", "_ended", "_eof", "_paused", "_rejected", "_task")

    def __init__(self, services: Services, hub: Hub, wire: Wire) -> None:
        super().__init__(services, hub, wire, Reader())
        self.idle_timeout_s = limits.IDLE_TIMEOUT_BEFORE_LOGIN_S
        self._task: asyncio.Task[None] | None = None
        self._draining: Reason | None = None  # say BYE for this reason as soon as no command runs
        self._ended = False  # nothing is written or read any more
        self._eof = False  # the client sends nothing more
        self._paused = False  # the connection does not read: too much is waiting behind the running command
        self._rejected = 0  # commands in a row that were no commands

    # --- what the connection calls ---

    def begin(self) -> None:
        """RFC 9051 §7.1: the greeting, with the capabilities, which spares a round trip."""
        self.hub.add(self)
        self.write(responses.untagged("OK", f"{self.services.hostname} ready", responses.code_capability(self.capabilities())))

    def data_received(self, data: bytes) -> None:
        """Take in what came, and act on it when nothing is running."""
        if self._ended:
            return
        self.reader.feed(data)
        if self._more is not None:
            if not self._more.done():
                self._more.set_result(None)
        elif self._task is None:
            self._advance()
        if self._task is not None and not self._paused and self.reader.buffered > limits.PIPELINE_BYTES_MAX and self._more is None:
            self._paused = True
            self.wire.pause_reading()

    def eof_received(self) -> None:
        """The client sends nothing more. What was complete is done and answered; then the connection closes."""
        self._eof = True
        if self._task is None or self._more is not None:
            self._end()

    def timed_out(self) -> None:
        """RFC 9051 §5.4. A command that is still running is not idleness, but a client that does not read its answer is."""
        if self._task is not None and not self.wire.congested and self._more is None:
            return
        telemetry_of(self.wire.protocol).error("idle-timeout")
        self._bye("Idle for too long")

    def shut_down(self) -> None:
        """The pod drains (RFC 9051 §7.1.5)."""
        self.close_for(SHUTTING_DOWN)

    def close_for(self, reason: Reason) -> None:
        """End the session for `reason`, told in BYE: at once when it waits, else after the command that runs."""
        if self._ended or self._draining is not None:
            return
        self._draining = reason
        if self._task is None or self._more is not None:
            self._bye(reason.text, reason.imap_code)

    def connection_lost(self) -> None:
        """Cancel what runs, let go of everything."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        self.reserve(-self.reserved_bytes)
        self.hub.remove(self)
        self.selected = None
        self.opened_account = None

    # --- events ---

    def _advance(self) -> None:
        """Act on what the reader has; what may have to wait runs in a task."""
        while (event := None if self._ended else self.reader.next_event()) is not None:
            if isinstance(event, Command | AppendLiteral):
                self._task = asyncio.get_running_loop().create_task(self._work(event))
                return
            self._simple(event)

    async def _work(self, event: Event) -> None:
        """Run commands until there is none, then let the task end."""
        try:
            following: Event | None = event
            while following is not None:
                if isinstance(following, Command):
                    await self._command(following)
                elif isinstance(following, AppendLiteral):
                    await decide_literal(self, following)
                else:
                    self._simple(following)
                following = self._next()
        except ConnectionError:
            self._end()  # the client is gone; nobody is left to be told
        finally:
            self._task = None
            self._resume()
        if not self._ended and self._draining is not None:
            self._bye(self._draining.text, self._draining.imap_code)
        elif self._eof:
            self._end()

    def _next(self) -> Event | None:
        """The next event behind a finished command; between two commands a waiting end of the session takes effect."""
        if self._ended or self._draining is not None:
            return None
        event = self.reader.next_event()
        if self._paused and self.reader.buffered <= limits.PIPELINE_BYTES_MAX // 2:
            self._resume()
        return event

    def _resume(self) -> None:
        if self._paused and not self._ended:
            self._paused = False
            self.wire.resume_reading()

    def _simple(self, event: Event) -> None:
        """Events that are answered at once."""
        match event:
            case ContinuationNeeded():
                self.write(responses.continuation())
            case Line(data):
                self._idle_over(data)
            case Rejected(tag, status, code, text, name):
                self._count(name, status)
                self.reserve(-self.reserved_bytes)  # an APPEND that ends so
                self.write(responses.tagged(tag, status, text, code))
                self._rejected += 1
                if self._rejected >= limits.COMMANDS_REJECTED_MAX or (self.opened_account is None and self._rejected >= _BEFORE_LOGIN_MAX):
                    telemetry_of(self.wire.protocol).error("too-many-bad-commands")
                    self._bye(answers.TOO_MANY_ERRORS.text)
            case Fatal(tag, code, text):
                if tag != "*":
                    self.write(responses.tagged(tag, "BAD", text, code))
                telemetry_of(self.wire.protocol).error("unreadable-input")
                self._bye(text, code)
            case _:
                raise AssertionError(event)

    def _idle_over(self, line: bytes) -> None:
        """RFC 2177 §3: DONE ends IDLE; anything else is an error, and ends it too."""
        tag = end_idle(self)
        if line.strip().upper() == b"DONE":
            self._answer(tag, "IDLE", Answer("OK", "Idle completed"))
        else:
            self._answer(tag, "IDLE", bad("Expected DONE"))

    # --- commands ---

    async def _command(self, command: Command) -> None:
        """Run one command and answer it. Nothing that goes wrong in it gets any further than its answer."""
        self._rejected = 0
        started = self.services.clock.monotonic()
        spec = COMMANDS[type(command.body)]
        self.current_tag = command.tag
        try:
            answer = await spec.run(self, command.body)
            if answer is not None:
                await self._tell(spec, command)
        except MailError as error:
            answer = await self._failed(command, error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("imap-command-failed", session=self.wire.session_id, account=self.account_address, command=command.name)
            telemetry_of(self.wire.protocol).error("internal-error")
            answer = answers.refused(answers.SERVER_BUG)
        if answer is not None and not self._ended:
            self._answer(command.tag, command.name, answer)
            if command.name not in _NO_DURATION:
                telemetry_of(self.wire.protocol).seconds(command.name, self.services.clock.monotonic() - started)

    async def _tell(self, spec: Spec, command: Command) -> None:
        how = spec.tell(command.body) if callable(spec.tell) else spec.tell
        await self.tell(how, uid=command.name.startswith("UID "))
        if how is not Tell.NOTHING:
            self._notice_deleted_folder()

    def _notice_deleted_folder(self) -> None:
        """RFC 2180 §3.3: a session whose folder was deleted by another is disconnected; it could not number anything any more."""
        if self.selected is not None and self.opened().view.folder_by_id(self.selected.folder_id) is None:
            self.closing = True
            self.farewell = responses.bye(answers.FOLDER_DELETED.text)

    async def _failed(self, command: Command, error: MailError) -> Answer:
        """The answer for a refusal or a fault of the store; what others did meanwhile is told all the same."""
        level = log.error if isinstance(error, Corrupt) else log.info
        level(
            "imap-command-refused",
            session=self.wire.session_id,
            account=self.account_address,
            command=command.name,
            reason=error.reason.name,
            detail=error.detail,
        )
        if error.reason.name == ACCOUNT_CLOSED.name:
            self.closing = True
            self.farewell = responses.bye(error.reason.text)
        elif self.selected is not None and self.opened_account is not None:
            await self.tell(Tell.NO_EXPUNGE)
        return answers.refused(error.reason)

    def _answer(self, tag: str, name: str, answer: Answer) -> None:
        self._count(name, answer.status)
        self.write(responses.tagged(tag, answer.status, answer.text, answer.code))
        if self.closing:
            if self.farewell:
                self.write(self.farewell)
            self._end()

    def _count(self, name: str, status: str) -> None:
        telemetry_of(self.wire.protocol).command(name or "other", status)

    # --- the session's state ---

    def capabilities(self) -> list[str]:
        """What is announced now."""
        return announced(CAPABILITIES, self)

    def logged_in(self, mailbox: MailboxConfig, account: Account) -> None:
        """From here on the session belongs to `account`."""
        self.mailbox = mailbox
        self.opened_account = account
        self.idle_timeout_s = limits.IDLE_TIMEOUT_S
        self.set_reader_state()

    def set_reader_state(self) -> None:
        """Tell the reader which commands are allowed now, and how names are spelled."""
        if self.opened_account is None:
            self.reader.state = State.NOT_AUTHENTICATED
        else:
            self.reader.state = State.AUTHENTICATED if self.selected is None else State.SELECTED
        self.reader.utf8 = self.utf8 or self.rev2

    async def begin_tls(self) -> Answer | None:
        """Answer STARTTLS, negotiate, forget what went before (RFC 9051 §6.2.1)."""
        self._answer(self.current_tag, "STARTTLS", Answer("OK", "Begin TLS negotiation now"))
        self.reader.discard_buffered()
        try:
            await self.wire.start_tls()
        except (ConnectionError, OSError):
            self._end()
            return None
        self.reader.discard_buffered()
        self.login_failures = self._rejected = 0
        return None

    def begin_compression(self) -> Answer | None:
        """Answer COMPRESS, and compress both ways from there."""
        self._answer(self.current_tag, "COMPRESS", Answer("OK", "DEFLATE active"))
        if self.reader.take_buffered():  # RFC 4978 §3: nothing may be sent before the answer was seen
            self._bye("Data sent before compression began")
            return None
        self.compressed = True
        self.wire.start_compression()
        return None

    def push_later(self) -> None:
        """Tell an idle session what is new at the speed at which its client reads. What the client sends meanwhile waits."""
        if self._task is None and not self._ended:
            self._task = asyncio.get_running_loop().create_task(self._push())

    async def _push(self) -> None:
        try:
            await self.wire.drained()
            await self.tell(Tell.ALL)
        except ConnectionError:
            self._end()
        finally:
            self._task = None
        if not self._ended:
            self.hub.watch(self)  # and look again: there may be more by now
            self._advance()
            if self._draining is not None and self._task is None:
                self._bye(self._draining.text, self._draining.imap_code)

    # --- the end ---

    def _bye(self, text: str, code: str = "") -> None:
        if not self._ended:
            self.write(responses.bye(text, code))
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.hub.quiet(self)
            self.wire.close()
            if self._task is not None and self._task is not asyncio.current_task():
                self._task.cancel()


_BEFORE_LOGIN_MAX: Final = 10  # bad commands in a row from somebody unknown


class _Telemetry:
    """The metrics of one protocol label, with the children looked up once. Sessions themselves are counted by their connections."""

    __slots__ = ("_commands", "_errors", "_protocol", "_seconds")

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._commands: dict[tuple[str, str], Counter] = {}
        self._seconds: dict[str, Histogram] = {}
        self._errors: dict[str, Counter] = {}

    def command(self, name: str, status: str) -> None:
        child = self._commands.get((name, status))
        if child is None:
            child = self._commands[name, status] = telemetry.COMMANDS.labels(self._protocol, name, status)
        child.inc()

    def seconds(self, name: str, seconds: float) -> None:
        child = self._seconds.get(name)
        if child is None:
            child = self._seconds[name] = telemetry.COMMAND_SECONDS.labels(self._protocol, name)
        child.observe(seconds)

    def error(self, reason: str) -> None:
        child = self._errors.get(reason)
        if child is None:
            child = self._errors[reason] = telemetry.SESSION_ERRORS.labels(self._protocol, reason)
        child.inc()


_TELEMETRY: dict[str, _Telemetry] = {}


def telemetry_of(protocol: str) -> _Telemetry:
    """The metrics of "imap" or "imaps"."""
    found = _TELEMETRY.get(protocol)
    if found is None:
        found = _TELEMETRY[protocol] = _Telemetry(protocol)
    return found

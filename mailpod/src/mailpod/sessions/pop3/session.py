"""One POP3 session: commands in order, each answered before the next begins."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from typing import ClassVar, NamedTuple

import structlog
from prometheus_client import Counter, Histogram

from mailpod import telemetry
from mailpod.contract import MailboxConfig
from mailpod.errors import SHUTTING_DOWN, MailError, Reason
from mailpod.limits import pop3 as limits
from mailpod.protocol.pop3 import commands, responses
from mailpod.protocol.pop3.commands import Command, CommandError
from mailpod.protocol.pop3.lines import LineReader, Oversize
from mailpod.sessions.pop3.login import Login
from mailpod.sessions.pop3.maildrop import Maildrop
from mailpod.sessions.pop3.transfer import Transfer, Truncated
from mailpod.sessions.services import Services
from mailpod.sessions.wire import Wire

log = structlog.get_logger(__name__)

# What a handler returns: None when the response is written, else what is to be awaited for it.
Work = Callable[[], Awaitable[None]] | None


class _Handler(NamedTuple):
    call: Callable[[Pop3Session, Command], Work]
    transaction: bool | None  # True: only after login; False: only before; None: always


class Pop3Shared:
    """What all POP3 sessions of a pod share besides `Services`: the count by account, and metrics resolved once."""

    def __init__(self) -> None:
        self.sessions: Tally[str] = Tally()
        self._metrics: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def note(self, protocol: str, verb: str, result: str, seconds: float) -> None:
        """Count a command."""
        key = (protocol, verb, result)
        found = self._metrics.get(key)
        if found is None:
            found = telemetry.COMMANDS.labels(*key), telemetry.COMMAND_SECONDS.labels(protocol, verb)
            self._metrics[key] = found
        found[0].inc()
        found[1].observe(seconds)


class Pop3Session:
    """Implements `sessions.wire.Session`. `account_address` is the mailbox's address after login, "" before."""

    def __init__(self, wire: Wire, services: Services, shared: Pop3Shared) -> None:
        self.idle_timeout_s = limits.LOGIN_IDLE_S
        self.account_address = ""
        self._wire = wire
        self._services = services
        self._shared = shared
        self._reader = LineReader()
        self._login = Login(wire, services)
        self._maildrop: Maildrop | None = None
        self._transfer: Transfer | None = None
        self._begun = services.clock.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._reading_paused = False
        self._negotiating = False
        self._utf8 = False
        self._bad_commands = 0
        self._updating = False  # QUIT's commit is on its way
        self._quitting = False  # it was the last command
        self._ending = False  # no further command is looked at
        self._eof = False
        self._farewell: Reason | None = None  # why the session is to end when no command runs

    # sessions.wire.Session

    def begin(self) -> None:
        """Greet. No timestamp in angle brackets: that would offer APOP (RFC 1939 §7)."""
        self._wire.write(responses.ok(f"{self._services.hostname} Postroom POP3 ready"))

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._ending or self._negotiating:  # RFC 2595 §4: plaintext behind STLS is thrown away
            return
        if not self.account_address and self._services.clock.monotonic() - self._begun > limits.LOGIN_S_MAX:
            self._end(responses.err("Too slow"))  # a byte now and then does not keep a session open
            return
        self._reader.feed(data)
        self._advance()

    def eof_received(self) -> None:
        """Answer what came before, then close. Without QUIT nothing is deleted (RFC 1939 §6)."""
        self._eof = True
        self._advance()

    def timed_out(self) -> None:
        """RFC 1939 §3: close without a response and without deleting anything."""
        if self._task is None:
            self._end(b"")

    def shut_down(self) -> None:
        """End when no command runs. The response answers whatever the client sends next: it was not done."""
        self.close_for(SHUTTING_DOWN)

    def close_for(self, reason: Reason) -> None:
        """The same for another reason, such as a mailbox that was locked."""
        self._farewell = self._farewell or reason
        self._advance()

    def connection_lost(self) -> None:
        """Let go of everything; only a commit that QUIT began goes on."""
        self._ending = True
        if self._task is not None and not self._updating:
            self._task.cancel()
        self._leave()

    # Commands in order.

    def _advance(self) -> None:
        turn = limits.COMMANDS_PER_TURN
        while self._task is None and not self._ending:
            if self._quitting:
                self._end(b"")
                return
            if self._farewell is not None:
                self._end(responses.err(self._farewell.text, self._farewell.pop3_code))
                return
            self._reader.line_bytes_max = limits.SASL_LINE_BYTES_MAX if self._login.in_exchange else limits.COMMAND_BYTES_MAX
            line = self._reader.next()
            if line is None:
                if self._eof:
                    self._end(b"")
                break
            self._one(line)
            turn -= 1
            if turn == 0 and self._task is None:
                self._start("", self._breathe)
        self._hold_back()

    def _hold_back(self) -> None:
        """Don't read on while too much waits behind a running command."""
        wanted = not self._ending and self._task is not None and len(self._reader) > limits.PIPELINED_BYTES_MAX
        if wanted != self._reading_paused:
            self._reading_paused = wanted
            if wanted:
                self._wire.pause_reading()
            else:
                self._wire.resume_reading()

    async def _breathe(self) -> None:
        await self._services.clock.sleep(0)
        if self._wire.congested:
            await self._wire.drained()

    def _one(self, line: bytes | Oversize) -> None:
        started = self._services.clock.monotonic()
        verb = "AUTH" if self._login.in_exchange else "?"
        try:
            if isinstance(line, Oversize):
                self._login.abandon()
                raise CommandError("Line too long")
            if self._login.in_exchange:
                work = self._sasl_line(line)
            else:
                command = commands.parse(line)
                handler = self._HANDLERS.get(command.verb)
                if handler is None:
                    raise CommandError("Unknown command")
                verb = command.verb
                if handler.transaction is not None and handler.transaction != (self._maildrop is not None):
                    raise CommandError("Not now: log in first" if handler.transaction else "Not now: already logged in")
                work = handler.call(self, command)
        except CommandError as error:
            self._refuse(verb, error, started)
            return
        except Exception:
            log.exception("session-fault", session=self._wire.session_id, protocol=self._wire.protocol, command=verb)
            self._fault()
            return
        if work is None:
            self._bad_commands = 0
            self._shared.note(self._wire.protocol, verb, "ok", self._services.clock.monotonic() - started)
        else:
            self._start(verb, work)

    def _start(self, verb: str, work: Callable[[], Awaitable[None]]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._perform(verb, work))

    async def _perform(self, verb: str, work: Callable[[], Awaitable[None]]) -> None:
        started = self._services.clock.monotonic()
        try:
            await work()
            if verb:
                self._bad_commands = 0
                self._shared.note(self._wire.protocol, verb, "ok", self._services.clock.monotonic() - started)
        except CommandError as error:
            self._refuse(verb, error, started)
        except MailError as error:
            log.info("command-failed", session=self._wire.session_id, command=verb, account=self.account_address, reason=error.reason.name)
            self._refuse(verb, CommandError(error.reason.text, error.reason.pop3_code), started)
        except Truncated as error:
            # Half a message is out: the only truthful end is one without the final dot.
            log.warning("transfer-cut", session=self._wire.session_id, account=self.account_address, reason=str(error))
            self._end(b"")
        except ConnectionResetError:
            self._end(b"")
        except Exception:
            log.exception("session-fault", session=self._wire.session_id, protocol=self._wire.protocol, command=verb)
            self._fault()
        finally:
            self._task = None
        self._advance()

    def _refuse(self, verb: str, error: CommandError, started: float) -> None:
        self._wire.write(responses.err(error.text, error.code))
        self._shared.note(self._wire.protocol, verb, "err", self._services.clock.monotonic() - started)
        self._bad_commands += 1
        if self._bad_commands >= limits.BAD_COMMANDS_MAX or self._login.exhausted:
            self._end(b"")

    def _fault(self) -> None:
        """A bug of ours: the client learns no more than that."""
        telemetry.SESSION_ERRORS.labels(self._wire.protocol, "internal").inc()
        self._end(responses.err("Internal error", "SYS/PERM"))

    def _end(self, farewell: bytes) -> None:
        if not self._ending:
            self._ending = True
            if farewell:
                self._wire.write(farewell)
            self._leave()
            self._wire.close()

    def _leave(self) -> None:
        if self._transfer is not None:
            self._transfer.close()
            self._transfer = None
        if self._maildrop is not None:
            self._shared.sessions[self.account_address] -= 1
            if not self._shared.sessions[self.account_address]:
                del self._shared.sessions[self.account_address]
            self._maildrop = None
        self._reader.clear()

    # AUTHORIZATION state.

    def _user(self, command: Command) -> Work:
        self._login.user(commands.text(command.argument.strip()))
        self._wire.write(responses.ok("Send PASS"))
        return None

    def _pass(self, command: Command) -> Work:
        self._login.require_tls()
        password = commands.text(command.argument)
        return lambda: self._enter(self._login.password(password))

    def _auth(self, command: Command) -> Work:
        words = commands.words(command, 0, 2)
        if not words:  # older than RFC 5034, and still asked by some: the list of mechanisms
            self._wire.write(responses.listing("", self._login.mechanisms()))
            return None
        self._login.require_tls()
        mechanism = words[0].decode("ascii", "replace")
        initial = words[1] if len(words) > 1 else None
        return lambda: self._enter(self._login.begin(mechanism, initial))

    def _sasl_line(self, line: bytes) -> Work:
        return lambda: self._enter(self._login.answer(line))

    async def _enter(self, login: Awaitable[MailboxConfig | None]) -> None:
        """Finish a login: take the view that the whole session sees."""
        mailbox = await login
        if mailbox is None:
            return  # a challenge went out
        if self._shared.sessions[mailbox.address] >= limits.SESSIONS_PER_ACCOUNT_MAX:
            raise CommandError("Too many sessions of this mailbox", "IN-USE")
        account = await self._services.store.open(mailbox.address)
        view = await account.refresh()
        inbox = view.folder("INBOX")
        if inbox is None:
            raise CommandError("No INBOX", "SYS/PERM")
        self._maildrop = Maildrop(account, inbox)
        self._transfer = Transfer(self._wire, self._maildrop)
        self.account_address = mailbox.address
        self._shared.sessions[self.account_address] += 1
        self.idle_timeout_s = limits.IDLE_S
        messages, octets = self._maildrop.totals()
        log.info("pop3-login", session=self._wire.session_id, account=self.account_address, messages=messages)
        self._wire.write(responses.ok(f"{messages} messages ({octets} octets)"))

    def _stls(self, command: Command) -> Work:
        commands.words(command, 0, 0)
        if self._wire.tls is not None:
            raise CommandError("TLS is already active")
        if self._utf8:
            raise CommandError("STLS comes before UTF8")  # RFC 6856 §2.1
        self._wire.write(responses.ok("Begin TLS"))
        # RFC 2595 §4: from here on nothing that came in plaintext counts, neither lines nor the name given.
        self._negotiating = True
        self._reader.clear()
        return self._negotiate

    async def _negotiate(self) -> None:
        await self._wire.start_tls()
        self._reader.clear()
        self._login = Login(self._wire, self._services)
        self._negotiating = False

    def _utf8_mode(self, command: Command) -> Work:
        commands.words(command, 0, 0)
        self._utf8 = True  # RFC 6856 §2.1: messages are sent byte for byte with and without it
        self._wire.write(responses.ok("UTF8 enabled"))
        return None

    # Any state.

    def _capa(self, command: Command) -> Work:
        commands.words(command, 0, 0)
        lines = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "UTF8 USER", "LANG"]
        if mechanisms := self._login.mechanisms():
            lines += ["USER", f"SASL {' '.join(mechanisms)}"]
        if self._wire.tls is None:
            lines.append("STLS")
        lines.append("IMPLEMENTATION Postroom")
        self._wire.write(responses.listing("Capabilities", lines))
        return None

    def _lang(self, command: Command) -> Work:
        """RFC 6856 §3: English is what there is."""
        words = commands.words(command, 0, 1)
        if not words:
            self._wire.write(responses.listing("Languages", ["en English", "i-default English"]))
        elif words[0].lower() in (b"*", b"en", b"i-default"):
            self._wire.write(responses.ok("en English"))
        else:
            raise CommandError("Unknown language")
        return None

    def _quit(self, command: Command) -> Work:
        if self._maildrop is None or not self._maildrop.deleted:
            self._end(responses.ok("Bye"))
            return None
        maildrop = self._maildrop
        return lambda: self._update(maildrop)

    async def _update(self, maildrop: Maildrop) -> None:
        """RFC 1939 §6: the UPDATE state. One commit: all marked messages go, or none does and the client is told."""
        self._updating = self._quitting = True
        try:
            removed = await maildrop.update()
        except MailError as error:
            log.info("update-failed", session=self._wire.session_id, account=self.account_address, reason=error.reason.name)
            raise CommandError(f"Deleted messages not removed: {error.reason.text}", error.reason.pop3_code) from None
        log.info("pop3-update", session=self._wire.session_id, account=self.account_address, removed=removed)
        self._wire.write(responses.ok(f"Bye, {removed} messages removed"))

    # TRANSACTION state.

    @property
    def _drop(self) -> Maildrop:
        assert self._maildrop is not None
        return self._maildrop

    def _noop(self, command: Command) -> Work:
        commands.words(command, 0, 0)
        self._wire.write(responses.ok())
        return None

    def _stat(self, command: Command) -> Work:
        commands.words(command, 0, 0)
        messages, octets = self._drop.totals()
        self._wire.write(responses.ok(f"{messages} {octets}"))
        return None

    def _list(self, command: Command) -> Work:
        return self._listing(command, unique=False)

    def _uidl(self, command: Command) -> Work:
        return self._listing(command, unique=True)

    def _listing(self, command: Command, *, unique: bool) -> Work:
        words = commands.words(command, 0, 1)
        drop = self._drop
        if words:
            row = drop.row(commands.number(words[0]))
            self._wire.write(responses.ok(f"{row + 1} {drop.uidl(row) if unique else drop.size(row)}"))
            return None
        self._wire.write(responses.ok(f"{drop.totals()[0]} messages"))
        if drop.inbox.count <= limits.LISTING_LINES:
            self._wire.writelines([*drop.listing(unique=unique), responses.END])
            return None
        return lambda: self._long_listing(drop, unique=unique)

    async def _long_listing(self, drop: Maildrop, *, unique: bool) -> None:
        for lines in drop.listing(unique=unique):
            self._wire.write(lines)
            await self._breathe()
        self._wire.write(responses.END)

    def _retr(self, command: Command) -> Work:
        (message,) = commands.words(command, 1, 1)
        row = self._drop.row(commands.number(message))
        transfer = self._transfer
        assert transfer is not None
        return lambda: transfer.retrieve(row)

    def _top(self, command: Command) -> Work:
        message, lines = commands.words(command, 2, 2)
        row, count = self._drop.row(commands.number(message)), commands.number(lines)
        transfer = self._transfer
        assert transfer is not None
        return lambda: transfer.top(row, count)

    def _dele(self, command: Command) -> Work:
        (message,) = commands.words(command, 1, 1)
        row = self._drop.row(commands.number(message))
        self._drop.deleted.add(row)
        self._wire.write(responses.ok(f"Message {row + 1} marked as deleted"))
        return None

    def _rset(self, command: Command) -> Work:
        commands.words(command, 0, 0)
        self._drop.deleted.clear()
        messages, octets = self._drop.totals()
        self._wire.write(responses.ok(f"{messages} messages ({octets} octets)"))
        return None

    _HANDLERS: ClassVar[dict[str, _Handler]] = {
        "USER": _Handler(_user, False),
        "PASS": _Handler(_pass, False),
        "AUTH": _Handler(_auth, False),
        "STLS": _Handler(_stls, False),
        "UTF8": _Handler(_utf8_mode, False),
        "CAPA": _Handler(_capa, None),
        "LANG": _Handler(_lang, None),
        "QUIT": _Handler(_quit, None),
        "NOOP": _Handler(_noop, True),
        "STAT": _Handler(_stat, True),
        "LIST": _Handler(_list, True),
        "UIDL": _Handler(_uidl, True),
        "RETR": _Handler(_retr, True),
        "TOP": _Handler(_top, True),
        "DELE": _Handler(_dele, True),
        "RSET": _Handler(_rset, True),
    }

"""Watches the configuration and puts a changed one in force as a whole, or not at all."""

from __future__ import annotations

from typing import Protocol

import structlog

from mailpod.adapters.configdir import ConfigDirectory
from mailpod.errors import StoreUnavailable
from mailpod.limits import web as limits
from mailpod.main import configuration
from mailpod.main.configuration import ConfigError, Configuration
from mailpod.ports import Clock
from mailpod.telemetry import CONFIG_RELOADS
from mailpod.web.health import Health

log = structlog.get_logger(__name__)

_RELOADS = {result: CONFIG_RELOADS.labels(result) for result in ("ok", "refused")}


class Reloadable(Protocol):
    """The pod as the reloader sees it."""

    configuration: Configuration  # the one in force
    health: Health

    @property
    def clock(self) -> Clock:
        """What time it is for the pod."""

    async def apply(self, new: Configuration) -> None:
        """Put in force, or raise (ConfigError, StoreUnavailable, OSError) and leave everything as it was."""


class Reloader:
    """Looks once a second. What was refused is tried again when it changes, and now and then if it was not the files' fault."""

    def __init__(self, directory: ConfigDirectory, pod: Reloadable) -> None:
        self._directory = directory
        self._pod = pod
        self._refused = ""  # digest of the files that were refused for good
        self._reported = ""

    async def run(self) -> None:
        """Watch for ever."""
        again = False
        while True:
            await self._pod.clock.sleep(limits.CONFIG_POLL_S)
            try:
                if self._directory.changed() or again:
                    again = not await self.look()
            except Exception:  # a fault of ours must not take the pod, nor later reloads, away
                again = True
                log.exception("config-look-failed")

    async def look(self) -> bool:
        """One look; returns False when the same files should be tried again."""
        digest = ""
        try:
            files = self._directory.read()
            digest = configuration.digest_of(files)
            if digest == self._pod.configuration.digest:
                self._accepted()
                return True
            if digest == self._refused:
                return True
            new = configuration.parse(files)
            await self._pod.apply(new)
        except ConfigError as error:
            self._refused = digest
            self._report(digest, str(error))
            return True
        except (StoreUnavailable, OSError) as error:
            self._report(digest, str(error))
            return False
        self._accepted()
        _RELOADS["ok"].inc()
        log.info("config-loaded", generation=new.pod.generation, mailboxes=len(new.mailboxes))
        return True

    def _accepted(self) -> None:
        self._refused = self._reported = ""
        self._pod.health.note("config", None)

    def _report(self, digest: str, why: str) -> None:
        in_force = self._pod.configuration.pod.generation
        self._pod.health.note("config", f"a changed configuration was refused, generation {in_force} stays in force: {why}")
        if self._reported != digest + why:
            self._reported = digest + why
            _RELOADS["refused"].inc()
            log.error("config-refused", why=why, in_force=in_force)

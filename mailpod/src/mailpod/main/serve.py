"""The process: event loop, signals, exit code, and the message that Kubernetes shows when a pod ended by itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import uvloop

from mailpod.adapters.configdir import ConfigDirectory
from mailpod.adapters.system import SystemClock, SystemEntropy
from mailpod.limits import web as limits
from mailpod.main import configuration, logs
from mailpod.main.pod import BucketUnfitError, Pod
from mailpod.main.reload import Reloader
from mailpod.servers.listener import raise_file_limit

log = structlog.get_logger(__name__)

EXIT_DRAINED: Final = 0
EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 3
EXIT_BUCKET: Final = 4
EXIT_LATE: Final = 5


class Options(NamedTuple):
    """What the command line says."""

    config: Path
    data: Path | None
    bind: str | None
    termination_log: Path | None


def run(options: Options) -> int:
    """Run a pod in this process; returns its exit code."""
    logs.configure("Info", SystemClock())
    raise_file_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options))


async def _serve(options: Options) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    directory = ConfigDirectory(options.config)
    try:
        first = configuration.parse(directory.read())
    except (configuration.ConfigError, OSError) as error:
        return _ended(options, EXIT_CONFIG, "config-refused", str(error))
    logs.set_level(first.pod.log_level)
    pod = Pod(first, SystemClock(), SystemEntropy(), options.data, options.bind)
    starting = loop.create_task(pod.start())
    stopping = loop.create_task(stop.wait())
    # From the beginning: a pod that waits for its bucket may be given better keys.
    watching = loop.create_task(Reloader(directory, pod).run())
    try:
        await asyncio.wait({starting, stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
            gc.collect()
            gc.freeze()  # what was made up to here stays: later collections need not look at it
            await asyncio.wait({stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching
    except BucketUnfitError as error:
        await pod.abandon()
        return _ended(options, EXIT_BUCKET, "bucket-unfit", str(error))
    except OSError as error:
        await pod.abandon()
        return _ended(options, EXIT_FAILED, "not-started", str(error))
    except Exception as error:
        log.exception("not-started")
        await pod.abandon()
        return _ended(options, EXIT_FAILED, "not-started", f"{type(error).__name__}: {error}")
    finally:
        for task in (starting, stopping, watching):
            task.cancel()
        await asyncio.gather(starting, stopping, watching, return_exceptions=True)
    log.info("draining", generation=pod.configuration.pod.generation)
    complete = await pod.drain()
    log.info("drained", complete=complete)
    return EXIT_DRAINED if complete else EXIT_LATE


def _ended(options: Options, code: int, event: str, why: str) -> int:
    log.error(event, why=why, exit_code=code)
    path = options.termination_log
    if path is not None and path.exists():
        # Kubernetes makes the file; elsewhere there is none, and nobody reads one.
        with contextlib.suppress(OSError):
            path.write_bytes(f"{event}: {why}".encode()[: limits.TERMINATION_MESSAGE_BYTES_MAX])
    return code

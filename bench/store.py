"""A large account: how long a process that knows nothing takes to open it, and what memory it adds.

The mailbox is made by APPEND of a few thousand real messages and COPY of them, as commits of the real store in the real bucket. The
measuring runs in a process of its own (`python -m bench.store`, settings on standard input), so that the filling's memory is not counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

import msgspec
import numpy as np
import uvloop

from bench.imap import message
from bench.process import Tree
from bench.table import Result, Row
from mailpod.adapters.objects import Credentials, open_bucket
from mailpod.adapters.system import SystemClock, SystemEntropy, ThreadOffload
from mailpod.contract import StorageConfig
from mailpod.store import MailStore, StoreOptions
from mailpod.store.types import NewMessage
from tests.support.seaweed import Seaweed

ADDRESS = "million@example.com"
OPEN_S, MEMORY_BYTES = 1.0, 64_000_000


class Job(msgspec.Struct):
    """What the measuring process is told."""

    storage: StorageConfig
    access_key: str
    secret_key: str
    count: int


def _store(job: Job) -> MailStore:
    bucket = open_bucket(job.storage, SystemClock(), credentials=Credentials(job.access_key, job.secret_key), ca_pem=None)
    return MailStore(bucket, SystemClock(), SystemEntropy(), ThreadOffload(2), StoreOptions(pod="bench"))


async def _fill(job: Job) -> None:
    store = _store(job)
    account = await store.open(ADDRESS)
    inbox = account.view.folder("INBOX")
    assert inbox is not None
    base = job.count // 250
    messages = [NewMessage(message(number, 600), (), 1_700_000_000 + number) for number in range(base)]
    first = np.array((await account.append(inbox.id, messages)).uids, np.uint32)
    for _ in range(4):
        await account.copy(inbox.id, first, inbox.id)
    grown = account.view.folder("INBOX")
    assert grown is not None
    step = grown.uids()
    for _ in range(49):
        await account.copy(inbox.id, step, inbox.id)
    await store.drain()


async def _measure(job: Job) -> dict[str, float]:
    store = _store(job)
    await store.open("nobody-yet@example.com")  # the way to the bucket, code and arenas are there
    tree = Tree((os.getpid(),))
    before, before_cpu = tree.rss_bytes(), tree.cpu_s()
    started = time.perf_counter()
    account = await store.open(ADDRESS)
    seconds = time.perf_counter() - started
    cpu = tree.cpu_s() - before_cpu
    inbox = account.view.folder("INBOX")
    assert inbox is not None
    if inbox.count != job.count:
        raise RuntimeError(f"{inbox.count} messages instead of {job.count}")
    return {
        "seconds": seconds, "cpu": cpu, "added": tree.rss_bytes() - before, "columns": account.memory_bytes(),
        "peak": tree.peak_rss_bytes() - before,
    }  # fmt: skip


def run(result: Result, seaweed: Seaweed, bucket: str, count: int) -> None:
    """One row."""
    storage = StorageConfig(bucket=bucket, endpoint=seaweed.endpoint, force_path_style=True)
    job = Job(storage, seaweed.access_key, seaweed.secret_key, count)
    uvloop.run(_fill(job))
    answers = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-m", "bench.store"], input=msgspec.json.encode(job), stdout=subprocess.PIPE, check=True)
        answers.append(json.loads(done.stdout))
    best = min(answers, key=lambda answer: answer["seconds"])
    result.add(
        Row(
            f"{count:,} messages in one account: memory, time to open", "≤ 64 MB, ≤ 1 s",
            f"{best['added'] / 1e6:.0f} MB (columns {best['columns'] / 1e6:.0f} MB, peak while opening {best['peak'] / 1e6:.0f} MB),"
            f" {best['seconds']:.2f} s ({best['cpu']:.2f} s CPU)",
            reached=best["added"] <= MEMORY_BYTES and best["seconds"] <= OPEN_S,
        )
    )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)))))

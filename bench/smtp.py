"""SMTP accepted → visible in IMAP, beside Postfix with LMTP into Dovecot."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

from bench.imap_client import Imap
from bench.peers import PASSWORD as PEER_PASSWORD
from bench.peers import Peers
from bench.process import Tree
from bench.table import Result, Row
from mailpod.contract import ListenerName
from tests.support.pods import PASSWORD, Pod
from tests.support.seaweed import Seaweed

CLIENTS = 10
# size, mailboxes, pod CPU ms, with SeaweedFS ms, rate against the peer's
TARGETS = (
    (10_000, 1, 0.9, 1.6, 1.3),
    (10_000, 10, 1.2, 2.3, 1.1),
    (75_000, 1, 1.0, 2.0, 1.3),
    (75_000, 10, 1.6, 3.3, 1.0),
)


@dataclass
class Side:
    """One run of one side."""

    rate: float  # messages a second, first byte sent to last one visible
    cpu_ms: float  # a message
    with_store_ms: float  # a message, the object store's CPU included
    memory_bytes: int  # proportional set size of the first tree at the end of the run


def users(count: int) -> list[str]:
    """The mailboxes that take the load."""
    return [f"bench{number}" for number in range(count)]


def _count(port: int, user: str, password: str) -> int:
    with Imap(port) as imap:
        imap.login(user, password)
        answer = imap.command("STATUS INBOX (MESSAGES)", keep=True)
    return int(answer.partition(b"MESSAGES ")[2].split(b")")[0])


def _run(smtp: int, imaps: int, names: list[str], suffix: str, password: str, size: int, messages: int, trees: list[Tree]) -> Side:
    before_count = sum(_count(imaps, name + suffix, password) for name in names)
    before = [tree.cpu_s() for tree in trees]
    started = time.perf_counter()
    command = [
        sys.executable, "-m", "bench.smtp_load", "--port", str(smtp), "--messages", str(messages), "--clients", str(CLIENTS),
        "--bytes", str(size), "--rcpt", *(f"{name}@example.com" for name in names),
    ]  # fmt: skip
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if answer["accepted"] != messages:
        raise RuntimeError(f"only {answer} of {messages} accepted")
    while sum(_count(imaps, name + suffix, password) for name in names) < before_count + messages:
        time.sleep(0.05)
    seconds = time.perf_counter() - started
    used = [tree.cpu_s() - start for tree, start in zip(trees, before, strict=True)]
    return Side(messages / seconds, used[0] / messages * 1000, sum(used) / messages * 1000, trees[0].rss_bytes())


def run(result: Result, pod: Pod, store: Seaweed, peers: Peers | None, messages: int = 3000) -> None:
    """Four rows."""
    assert pod.process is not None
    for size, mailboxes, cpu_target, both_target, rate_target in TARGETS:
        count = messages if size < 50_000 else messages // 2
        names = users(mailboxes)
        trees = [Tree((pod.process.pid,)), Tree((store.process.pid,))]
        args = (pod.ports[ListenerName.SMTP], pod.ports[ListenerName.IMAPS], names, "@example.com", PASSWORD, size)
        _run(*args, count // 10, trees)  # warm: accounts opened, code paths taken
        ours = _run(*args, count, trees)
        peer_text, ratio, reached = "", "", ours.cpu_ms <= cpu_target and ours.with_store_ms <= both_target
        if peers is not None:
            peer_args = (peers.smtp, peers.imaps, names, "", PEER_PASSWORD, size)
            _run(*peer_args, count // 10, [peers.tree()])
            theirs = _run(*peer_args, count, [peers.tree()])
            peer_text = f"{theirs.rate:.0f} /s, {theirs.cpu_ms:.2f} ms, {theirs.memory_bytes / 1e6:.0f} MB"
            ratio = f"{ours.rate / theirs.rate:.2f}"
            reached = reached and ours.rate >= rate_target * theirs.rate
        result.add(
            Row(
                f"SMTP accepted → visible in IMAP, {size // 1000} KB, {CLIENTS} clients, {mailboxes} mailbox{'es' * (mailboxes > 1)}",
                f"pod ≤ {cpu_target} ms, with SeaweedFS ≤ {both_target} ms, rate ≥ {rate_target} ×",
                f"{ours.rate:.0f} /s, pod {ours.cpu_ms:.2f} ms, with SeaweedFS {ours.with_store_ms:.2f} ms,"
                f" {ours.memory_bytes / 1e6:.0f} MB",
                peer_text,
                ratio,
                reached,
            )
        )

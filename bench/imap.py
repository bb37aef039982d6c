"""IMAP on a folder of 100,000 messages, beside Dovecot on the same messages in a Maildir."""

from __future__ import annotations

import select
import statistics
import time
from collections.abc import Callable

from bench.imap_client import Imap
from bench.peers import PASSWORD as PEER_PASSWORD
from bench.peers import Peers
from bench.process import Tree
from bench.smtp_load import build
from bench.table import Result, Row
from mailpod.contract import ListenerName
from tests.support.pods import PASSWORD, Pod

USER = "big"
ADDRESS = f"{USER}@example.com"


def message(number: int, size: int = 1500) -> bytes:
    """The same message on both sides."""
    return build(size, number).replace(b"Message-ID: <bench-", b"Message-ID: <m%d-" % number, 1)


def fill_by_append(port: int, user: str, password: str, count: int, size: int = 1500, batch: int = 500) -> None:
    """Fill a mailbox as any client would: MULTIAPPEND with non-synchronizing literals."""
    with Imap(port) as imap:
        imap.login(user, password)
        for start in range(0, count, batch):
            parts = []
            for number in range(start, min(start + batch, count)):
                body = message(number, size)
                parts.append(b" {%d+}\r\n%s" % (len(body), body))
            imap.append("INBOX", parts)


def fill_maildir(peers: Peers, user: str, count: int, size: int = 1500) -> None:
    """The same messages as files in Dovecot's Maildir; it indexes them at the first SELECT, which is not timed."""
    current = peers.maildir(user) / "cur"
    for name in ("cur", "new", "tmp"):
        (peers.maildir(user) / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        body = message(number, size)
        (current / f"{1700000000 + number}.M{number}P1.bench,S={len(body)}:2,").write_bytes(body)
    peers.own(peers.maildir(user))


class Pair:
    """A connection to each side, and how to time one command on both."""

    def __init__(self, pod: Pod, peers: Peers | None) -> None:
        assert pod.process is not None
        self.ours = Imap(pod.ports[ListenerName.IMAPS])
        self.ours.login(ADDRESS, PASSWORD)
        self.tree = Tree((pod.process.pid,))
        self.theirs: Imap | None = None
        self.peer_tree: Tree | None = None
        if peers is not None:
            self.theirs = Imap(peers.imaps)
            self.theirs.login(USER, PEER_PASSWORD)
            self.peer_tree = peers.dovecot_tree()

    def both(self, commands: list[str], *, times: int = 5) -> tuple[float, float, float | None]:
        """Best wall seconds and CPU seconds of the pod for the last of `commands` (the others prepare), and the peer's wall seconds."""
        wall, cpu = self._measure(self.ours, self.tree, commands, times)
        if self.theirs is None or self.peer_tree is None:
            return wall, cpu, None
        return wall, cpu, self._measure(self.theirs, self.peer_tree, commands, times)[0]

    @staticmethod
    def _measure(imap: Imap, tree: Tree, commands: list[str], times: int) -> tuple[float, float]:
        walls = []
        used = 0.0
        for _ in range(times):
            for command in commands[:-1]:
                imap.command(command)
            before = tree.cpu_s()
            imap.command(commands[-1])
            used += tree.cpu_s() - before
            walls.append(imap.seconds)
        return min(walls), used / times


def _milli(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f} ms"


def run(result: Result, pod: Pod, peers: Peers | None, count: int) -> None:
    """All rows that need the big folder; it must have been filled on both sides."""
    pair = Pair(pod, peers)
    imap = pair.ours

    def row(work: str, target_s: float, target: str, measured: float, peer: float | None, show: Callable[[float], str]) -> None:
        ratio = f"{peer / measured:.1f}" if peer and measured else ""
        result.add(Row(work, target, show(measured), show(peer) if peer is not None else "", ratio, measured <= target_s))

    pair.both(["SELECT INBOX"], times=2)  # Dovecot indexes here
    newest = f"FETCH {count - 49}:{count} (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)"
    imap.command("SELECT INBOX")
    imap.command(newest)
    if pair.theirs is not None:
        pair.theirs.command("SELECT INBOX")
        pair.theirs.command(newest)

    def opened(side: Imap) -> float:
        walls = []
        for _ in range(10):
            side.command("UNSELECT")
            side.command("SELECT INBOX")
            select = side.seconds
            side.command(newest)
            walls.append(select + side.seconds)
        return min(walls)

    row(
        f"open {count:,} messages, FETCH newest 50, warm", 0.003, "≤ 3 ms", opened(imap),
        opened(pair.theirs) if pair.theirs else None, _milli,
    )  # fmt: skip
    for what, items, target_us in (("FLAGS", "(UID FLAGS)", 0.2), ("ENVELOPE", "ENVELOPE", 0.7)):
        imap.command(f"FETCH 1:* {items}")
        wall, cpu, peer = pair.both([f"FETCH 1:* {items}"])
        row(
            f"FETCH 1:* {what}, warm, wall a message (pod CPU {cpu / count * 1e6:.2f} µs)", target_us / 1e6 * count, f"≤ {target_us} µs",
            wall, peer, lambda seconds: f"{seconds / count * 1e6:.2f} µs",
        )  # fmt: skip
    for what, key, target_ms in (
        ("SUBJECT", 'SUBJECT "message 777"', 5.0),
        ("flags and dates", "SEEN NOT FLAGGED SINCE 1-Jan-2020", 1.0),
    ):
        imap.command(f"SEARCH {key}")
        wall, _, peer = pair.both([f"SEARCH RETURN (COUNT) {key}"], times=10)
        row(f"SEARCH {what}, {count:,} messages", target_ms / 1000, f"≤ {target_ms:.0f} ms", wall, peer, _milli)
    puts = pod.metric("mailpod_store_seconds_sum", operation="create")
    wall, _, peer = pair.both(["STORE 1:* -FLAGS.SILENT (\\Flagged)", "STORE 1:* +FLAGS (\\Flagged)"], times=3)
    put = (pod.metric("mailpod_store_seconds_sum", operation="create") - puts) / 6
    row(f"STORE 1:* on {count:,} (PUT of {_milli(put)} taken off)", 0.015, "≤ 15 ms without the PUT", wall - put, peer, _milli)
    sides: list[tuple[Imap, float]] = []
    for side in [imap] + ([pair.theirs] if pair.theirs else []):
        side.command("STORE 1:* -FLAGS.SILENT (\\Deleted)")
        side.command(f"STORE 1:{count // 2} +FLAGS.SILENT (\\Deleted)")
        puts = pod.metric("mailpod_store_seconds_sum", operation="create")
        side.command("EXPUNGE")
        spent = pod.metric("mailpod_store_seconds_sum", operation="create") - puts if side is imap else 0.0
        sides.append((side, side.seconds - spent))
    row(
        f"EXPUNGE {count // 2:,} of {count:,}, the PUT taken off", 0.020, "≤ 20 ms without the PUT", sides[0][1],
        sides[1][1] if len(sides) > 1 else None, _milli,
    )  # fmt: skip


def logins(result: Result, pod: Pod, peers: Peers | None, times: int = 300) -> None:
    """LOGIN + SELECT on a connection that is there: the same connections without them are taken off."""
    assert pod.process is not None

    def cpu(port: int, user: str, password: str, tree: Tree, *, log_in: bool) -> float:
        before = tree.cpu_s()
        for _ in range(times):
            with Imap(port) as imap:
                if log_in:
                    imap.login(user, password)
                    imap.command("SELECT INBOX")
                imap.command("LOGOUT")
        return (tree.cpu_s() - before) / times

    def difference(port: int, user: str, password: str, tree: Tree) -> float:
        cpu(port, user, password, tree, log_in=True)
        return cpu(port, user, password, tree, log_in=True) - cpu(port, user, password, tree, log_in=False)

    ours = difference(pod.ports[ListenerName.IMAPS], "bench0@example.com", PASSWORD, Tree((pod.process.pid,)))
    peer = difference(peers.imaps, "bench0", PEER_PASSWORD, peers.dovecot_tree()) if peers else None
    ratio = f"{peer / ours:.1f}" if peer and ours > 0 else ""
    result.add(Row("LOGIN + SELECT, CPU, known password", "≤ 0.5 ms", _milli(ours), _milli(peer), ratio, ours <= 0.0005))


def cold(result: Result, pod: Pod, count: int) -> None:
    """A pod that has just been started opens the big folder: bucket requests and time."""
    pod.stop()
    pod.start()
    with Imap(pod.ports[ListenerName.IMAPS]) as imap:
        before = {name: pod.metric("mailpod_store_operations_total", operation=name) for name in ("get", "list")}
        imap.login(ADDRESS, PASSWORD)
        imap.command("SELECT INBOX")
        seconds = imap.seconds
        imap.command(f"FETCH {count - 49}:{count} (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)")
        after = {name: pod.metric("mailpod_store_operations_total", operation=name) - value for name, value in before.items()}
    result.add(
        Row(
            f"open {count:,} messages, FETCH newest 50, cold", "≤ 3 round trips + the tail's",
            f"{_milli(seconds + imap.seconds)}, {after['list']:.0f} LIST + {after['get']:.0f} GET",
        )
    )  # fmt: skip


def idle(result: Result, pods: list[Pod], peers: Peers | None, sessions: int, *, across: bool) -> None:
    """From another client's STORE to the last idling session's untagged line."""
    target = pods[1] if across else pods[0]
    sides: list[tuple[int, int, str, str]] = [
        (target.ports[ListenerName.IMAPS], pods[0].ports[ListenerName.IMAPS], "bench1@example.com", PASSWORD)
    ]
    if peers is not None and not across and sessions <= 50:
        sides.append((peers.imaps, peers.imaps, "bench1", PEER_PASSWORD))
    figures = []
    for idle_port, act_port, user, password in sides:
        waiting = []
        for _ in range(sessions):
            client = Imap(idle_port)
            client.login(user, password)
            client.command("SELECT INBOX")
            client.send(b"i IDLE\r\n")
            client.read()
            waiting.append(client)
        actor = Imap(act_port)
        actor.login(user, password)
        actor.command("SELECT INBOX")
        walls = []
        for turn in range(7):
            poller = select.epoll()
            for client in waiting:
                poller.register(client.fileno(), select.EPOLLIN)
            by_fd = {client.fileno(): client for client in waiting}
            started = time.perf_counter()
            actor.command(f"STORE 1 {'+' if turn % 2 else '-'}FLAGS.SILENT (\\Flagged)")
            committed = time.perf_counter()
            left = set(by_fd)
            while left and time.perf_counter() - started < 20:
                for descriptor, _ in poller.poll(1):
                    if descriptor in left:
                        left.discard(descriptor)
                        by_fd[descriptor].read()
            walls.append(max(0.0, time.perf_counter() - (committed if turn else started)))
            poller.close()
            time.sleep(0.2)
        figures.append(statistics.median(walls[1:]))
        for client in [*waiting, actor]:
            client.__exit__()
    limit = {True: 0.020, False: 0.005}[across] if sessions <= 50 else 0.060
    result.add(
        Row(
            f"IDLE push after the commit, {sessions} TLS sessions, {'other' if across else 'same'} pod", f"≤ {limit * 1000:.0f} ms",
            _milli(figures[0]), _milli(figures[1]) if len(figures) > 1 else "",
            f"{figures[1] / figures[0]:.0f}" if len(figures) > 1 and figures[0] else "", figures[0] <= limit,
        )
    )  # fmt: skip


def memory(result: Result, pod: Pod, peers: Peers | None) -> None:
    """Memory of one idle TLS session, logged in, a folder selected, in IDLE: proportional set size of the whole process tree."""
    # A fresh process: one that had a thousand sessions before would only use their memory again.
    pod.stop()
    pod.start()
    assert pod.process is not None
    each = _each_idle(Tree((pod.process.pid,)), pod.ports[ListenerName.IMAPS], "bench1@example.com", PASSWORD, 1000)
    peer = _each_idle(peers.dovecot_tree(), peers.imaps, "bench1", PEER_PASSWORD, 200) if peers is not None else None
    result.add(
        Row(
            "idle TLS session, memory (of 1,000; the peer's of 200)", "≤ 30 KB", f"{each / 1000:.1f} KB",
            "" if peer is None else f"{peer / 1000:.0f} KB", "" if peer is None else f"{peer / each:.0f}", each <= 30_000,
        )
    )  # fmt: skip


def _each_idle(tree: Tree, port: int, user: str, password: str, sessions: int) -> float:
    clients: list[Imap] = []

    def connect(number: int) -> None:
        for _ in range(number):
            client = Imap(port)
            client.login(user, password)
            client.command("SELECT INBOX")
            client.send(b"i IDLE\r\n")
            client.read()
            clients.append(client)

    connect(sessions // 10)  # the allocator's arenas and the account are there
    before = tree.rss_bytes()
    connect(sessions)
    each = (tree.rss_bytes() - before) / sessions
    for client in clients:
        client.__exit__()
    return each

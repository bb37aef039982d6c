"""`python -m tests.sim.run`: many seeds, or one of them again.

    python -m tests.sim.run --seeds 2000 --processes 2      so many seeds from --first on
    python -m tests.sim.run --seconds 3600 --processes 2    as many as fit (the soak)
    python -m tests.sim.run --seed 4711 --trace             one seed again, telling everything that happens

Exit status: 0 when every invariant held in every seed, 1 when one did not, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.pool import AsyncResult
from typing import NamedTuple

from tests.sim.scenario import Result, run_seed

BLOCK_SEEDS = 50  # handed to a worker process at a time
PROGRESS_S = 60.0
SHOWN_FAILURES = 20


class Totals:
    """What all seeds together did."""

    def __init__(self) -> None:
        self.seeds = 0
        self.operations = 0
        self.requests = 0
        self.virtual_s = 0.0
        self.faults: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.failed: list[tuple[int, list[str]]] = []

    def add(self, result: Result) -> None:
        """Count one seed in."""
        self.seeds += 1
        self.operations += result.operations
        self.requests += result.requests
        self.virtual_s += result.virtual_s
        self.faults.update(result.faults)
        self.outcomes.update(result.outcomes)
        if result.failures:
            self.failed.append((result.seed, result.failures))
            self.failed.sort()
            if len(self.failed) <= SHOWN_FAILURES:
                report_failure(result)

    def line(self, head: str, seconds: float) -> str:
        """One line for a log."""
        rate = self.seeds / max(seconds, 1e-9) * 60
        return (
            f"{head}: seeds={self.seeds} operations={self.operations} faults={self.faults.total()} failures={len(self.failed)} "
            f"({rate:.0f} seeds a minute, requests={self.requests}, virtual hours={self.virtual_s / 3600:.0f})"
        )


class Block(NamedTuple):
    """Seeds first … first+count-1."""

    first: int
    seeds: int


def report_failure(result: Result) -> None:
    """Say what failed, and how to see it again."""
    print(f"seed {result.seed} FAILED; again: python -m tests.sim.run --seed {result.seed} --trace", flush=True)
    for failure in result.failures[:5]:
        print(f"    {failure}", flush=True)


def work(block: Block) -> list[Result]:
    """Run a block of seeds, in a worker process or in this one."""
    return [run_seed(seed) for seed in range(block.first, block.first + block.seeds)]


def blocks(first: int, seeds: int | None) -> Iterator[Block]:
    """Blocks of seeds, endless when `seeds` is None."""
    at = first
    while seeds is None or at < first + seeds:
        count = BLOCK_SEEDS if seeds is None else min(BLOCK_SEEDS, first + seeds - at)
        yield Block(at, count)
        at += count


def run_many(first: int, seeds: int | None, seconds: float | None, processes: int) -> Totals:
    """Run until the seeds or the seconds are used up."""
    totals = Totals()
    start = last = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pending: list[AsyncResult[list[Result]]] = []
        source = blocks(first, seeds)
        exhausted = False
        while True:
            expired = seconds is not None and time.monotonic() - start >= seconds
            while not exhausted and not expired and len(pending) < processes * 2:
                block = next(source, None)
                if block is None:
                    exhausted = True
                else:
                    pending.append(pool.apply_async(work, (block,)))
            if not pending:
                break
            for result in pending.pop(0).get():
                totals.add(result)
            if time.monotonic() - last >= PROGRESS_S:
                last = time.monotonic()
                print(totals.line("sim", last - start), flush=True)
    return totals


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, help="how many seeds (default 2000, unless --seconds is given)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seconds", type=float, help="run for so long")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: print everything that happens")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """The command; returns the exit status."""
    options = parse(arguments)
    if options.seed is not None:
        result = run_seed(options.seed, trace=(lambda line: print(line, flush=True)) if options.trace else None)
        print(
            f"seed {result.seed}: operations={result.operations} requests={result.requests} faults={dict(sorted(result.faults.items()))} "
            f"digest={result.digest:08x} failures={len(result.failures)}"
        )
        for failure in result.failures:
            print(f"    {failure}")
        return 1 if result.failures else 0
    seeds = options.seeds if options.seeds is not None else (None if options.seconds is not None else 2000)
    start = time.monotonic()
    totals = run_many(options.first, seeds, options.seconds, options.processes)
    seconds = time.monotonic() - start
    print(f"seeds {options.first}..{options.first + totals.seeds - 1}, {seconds:.1f} s")
    print("faults injected: " + ", ".join(f"{kind} {count}" for kind, count in sorted(totals.faults.items())))
    print("operations by outcome: " + ", ".join(f"{kind} {count}" for kind, count in sorted(totals.outcomes.items())))
    if totals.failed:
        print("failing seeds: " + " ".join(str(seed) for seed, _ in totals.failed))
    print(totals.line("soak" if options.seconds is not None else "sim", seconds))
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

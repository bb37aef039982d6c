"""The rows of the result, and how they are printed: a table for a person, a page for docs/."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Row:
    """One line: what was done, what to reach, what Postroom and the peer took. All values are text with their unit."""

    work: str
    target: str
    ours: str
    peer: str = ""
    ratio: str = ""
    reached: bool | None = None  # None: there is nothing to compare with


@dataclass
class Result:
    """All rows of one run."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a row and print it at once: a run takes minutes."""
        self.rows.append(row)
        mark = {True: "reached", False: "MISSED", None: ""}[row.reached]
        print(
            f"{row.work}\n    ours {row.ours}\n    peer {row.peer or '-'}  ratio {row.ratio or '-'}  target {row.target}  {mark}",
            flush=True,
        )

    def markdown(self) -> str:
        """The table."""
        lines = ["| work | target | Postroom | Postfix + Dovecot | ratio | |", "|---|---|---|---|---|---|"]
        marks = {True: "reached", False: "**missed**", None: ""}
        lines += [f"| {r.work} | {r.target} | {r.ours} | {r.peer} | {r.ratio} | {marks[r.reached]} |" for r in self.rows]
        return "\n".join(lines) + "\n"


def machine() -> str:
    """What it ran on."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = cpus[0].partition(":")[2].strip() if cpus else platform.machine()
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024**2
    return f"{len(cpus)} × {name}, {memory} GiB, Linux {platform.release()}, Python {platform.python_version()}"

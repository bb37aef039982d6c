"""CPU time and memory of a process tree, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Tree:
    """The processes that a server consists of, found anew at each look: Postfix starts and ends children all the time."""

    roots: tuple[int, ...]  # process ids

    def processes(self) -> list[psutil.Process]:
        """The roots and all below them that live now."""
        found: dict[int, psutil.Process] = {}
        for root in self.roots:
            try:
                process = psutil.Process(root)
                found[root] = process
                found.update({child.pid: child for child in process.children(recursive=True)})
            except psutil.NoSuchProcess:
                continue
        return list(found.values())

    def cpu_s(self) -> float:
        """User and system seconds so far, with those of children that have ended and were waited for."""
        total = 0.0
        for process in self.processes():
            try:
                fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # proc(5): utime, stime, cutime, cstime are fields 14-17; counting starts at field 3 behind the name.
            total += sum(int(fields[field - 3]) for field in (14, 15, 16, 17)) / _TICKS
        return total

    def rss_bytes(self) -> int:
        """Resident memory now, shared pages counted once per process tree by their proportional share."""
        total = 0
        for process in self.processes():
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return total

    def peak_rss_bytes(self) -> int:
        """The sum of each living process's highest resident size (VmHWM)."""
        total = 0
        for process in self.processes():
            try:
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1]) * 1024
            except (FileNotFoundError, ProcessLookupError):
                continue
        return total

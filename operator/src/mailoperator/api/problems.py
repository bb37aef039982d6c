"""What is wrong with a resource, as a sentence that a person understands and a reason that a program can compare."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong. `reason` is what a condition would carry (CamelCase)."""

    kind: str
    namespace: str
    name: str
    path: str  # "spec.domain"; "" for the resource as a whole
    reason: str
    message: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{self.kind} {self.namespace}/{self.name}: {where}{self.message} ({self.reason})"

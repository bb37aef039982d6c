"""THREAD=REFERENCES and THREAD=ORDEREDSUBJECT (RFC 5256 §3) over columns: one entry a message, in sequence number order.

Linear but for the sorting, whatever the references are: no recursion, and a loop is found by the root of a union-find forest instead of
a walk to the top.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NONE = -1


class Forest(NamedTuple):
    """Threads as a forest. Nodes 0…n-1 are the messages; higher ones stand for messages that are missing and are only ever roots."""

    roots: list[int]
    children: dict[int, list[int]]  # in order; nodes without children are left out
    messages: int  # n


class Columns(NamedTuple):
    """What threading needs of each message (`Summary` has all of it)."""

    message_ids: Sequence[str]  # "" when missing
    references: Sequence[Sequence[str]]
    base_subjects: Sequence[str]
    is_reply: Sequence[bool]
    sent: Sequence[int]  # sent date, seconds; INTERNALDATE where there is none (RFC 5256 §2.2)


def thread_orderedsubject(base_subjects: Sequence[str], sent: Sequence[int]) -> Forest:
    """One thread a base subject; its oldest message has all others as children (RFC 5256 §3, ORDEREDSUBJECT)."""
    order = sorted(range(len(sent)), key=sent.__getitem__)  # stable: equal dates by sequence number
    first: dict[str, int] = {}
    children: dict[int, list[int]] = {}
    for index in order:
        root = first.setdefault(base_subjects[index], index)
        if root != index:
            children.setdefault(root, []).append(index)
    return Forest(list(first.values()), children, len(sent))


def thread_references(columns: Columns) -> Forest:
    """RFC 5256 §3, REFERENCES, steps 1 to 6."""
    return _References(columns).run()


class _References:
    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.count = len(columns.sent)
        self.parent: list[int] = []
        self.children: dict[int, list[int]] = {}
        self.dates: dict[int, int] = {}  # of nodes that stand for missing messages: their first child's

    def run(self) -> Forest:
        self._link()
        roots = self._prune()
        roots = self._sort_top(roots)
        roots = self._gather(roots)
        return Forest(self._sort_all(roots), self.children, self.count)

    def _link(self) -> None:
        """Step 1. A message's own last reference decides about its parent (1.B breaks other links), so those links are made before the
        ones between references (1.A): then every child is still a root when it is linked, and it would close a loop only if it were its
        new parent's root. A message without references loses what earlier messages said of its parent, and later ones may say it again.
        """
        ids: dict[str, int] = {}
        for index, message_id in enumerate(self.columns.message_ids):
            if message_id:
                ids.setdefault(message_id, index)  # a second one of the same id is a message of its own
        total = self.count
        chains: list[list[int]] = []
        for references in self.columns.references:
            chain: list[int] = []
            for reference in references:
                node = ids.get(reference)
                if node is None:
                    node = ids[reference] = total
                    total += 1
                chain.append(node)
            chains.append(chain)
        self.parent = parent = [NONE] * total
        top = list(range(total))  # union-find: towards the root

        def link(child: int, new_parent: int) -> None:
            if parent[child] != NONE:
                return
            root = new_parent
            while top[root] != root:
                top[root] = top[top[root]]
                root = top[root]
            if root != child:
                parent[child] = new_parent
                top[child] = root

        for index, chain in enumerate(chains):
            if chain:
                link(index, chain[-1])
        for index, chain in enumerate(chains):
            for before, after in itertools.pairwise(chain):
                if after >= self.count or chains[after] or after < index:
                    link(after, before)

    def _prune(self) -> list[int]:
        """Steps 2 and 3: nodes of missing messages go, their children move up; at the top one with several children stays."""
        count, parent = self.count, self.parent
        for node in range(len(parent)):
            if node >= count and parent[node] == NONE:
                continue
            if node < count:
                self._attach(node, parent)
        roots: list[int] = [index for index in range(count) if parent[index] == NONE]
        for node in range(count, len(parent)):
            below = self.children.get(node)
            if below is None:
                continue
            if len(below) == 1:
                roots.append(self.children.pop(node)[0])
            else:
                roots.append(node)
        return roots

    def _attach(self, node: int, parent: list[int]) -> None:
        """Hang a message under its nearest ancestor that is kept: a message, or a missing one at the top."""
        above = parent[node]
        passed: list[int] = []
        while above >= self.count and parent[above] != NONE:
            passed.append(above)
            above = parent[above]
        for between in passed:  # so that the next one need not climb the same way again
            parent[between] = above
        if above != NONE:
            self.children.setdefault(above, []).append(node)

    def _date(self, node: int) -> tuple[int, int]:
        """Sort key: sent date, then sequence number; of a missing message its first child's."""
        first = node if node < self.count else self.dates[node]
        return self.columns.sent[first], first

    def _sort_children(self, node: int) -> None:
        below = self.children[node]
        if len(below) > 1:
            below.sort(key=self._date)
        if node >= self.count:
            self.dates[node] = below[0] if below[0] < self.count else self.dates[below[0]]

    def _sort_top(self, roots: list[int]) -> list[int]:
        """Step 4."""
        for node in roots:
            if node >= self.count:
                self._sort_children(node)
        return sorted(roots, key=self._date)

    def _subject(self, node: int) -> tuple[str, bool]:
        first = node if node < self.count else self.dates[node]
        return self.columns.base_subjects[first], self.columns.is_reply[first] if node < self.count else False

    def _gather(self, roots: list[int]) -> list[int]:
        """Step 5: threads of one base subject become one."""
        table: dict[str, int] = {}
        for node in roots:
            subject, is_reply = self._subject(node)
            if not subject:
                continue
            held = table.get(subject)
            if held is None or (node >= self.count > held) or (held < self.count and self._subject(held)[1] and not is_reply):
                table[subject] = node
        kept: dict[int, None] = dict.fromkeys(roots)
        merged = len(self.parent)
        for node in roots:
            subject, is_reply = self._subject(node)
            held = table[subject] if subject else node
            if held == node:
                continue
            del kept[node]
            if held >= self.count:
                below = self.children.pop(node) if node >= self.count else [node]  # both missing: children join; else it becomes a child
                self.children[held].extend(below)
            elif is_reply and not self._subject(held)[1]:
                self.children.setdefault(held, []).append(node)
            else:  # neither answers the other: brothers under a message that is missing
                self.children[merged] = [held, node]
                self.dates[merged] = held
                del kept[held]
                kept[merged] = None
                table[subject] = merged
                merged += 1
        return list(kept)

    def _sort_all(self, roots: list[int]) -> list[int]:
        """Step 6."""
        for node in self.children:
            if node < self.count:
                self._sort_children(node)
        for node in self.children:
            if node >= self.count:
                self._sort_children(node)
        return sorted(roots, key=self._date)


def render_forest(forest: Forest, numbers: Sequence[int]) -> bytes:
    """The threads as RFC 5256 §4 writes them, `(1)(2 (3)(4 5))`; `numbers[i]` is message i's sequence number or UID."""
    out: list[str] = []
    children, count = forest.children, forest.messages
    stack: list[int | str] = []
    for root in forest.roots:
        stack.append(root)
        out.append("(")
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                out.append(item)
                continue
            while True:
                below = children.get(item)
                if item < count:
                    out.append(str(numbers[item]))
                    if below:
                        out.append(" ")
                if not below or len(below) > 1:
                    break
                item = below[0]
            for child in reversed(below or ()):
                stack += (")", child, "(")
        out.append(")")
    return "".join(out).encode("ascii")


def thread_ids(forest: Forest) -> Iterable[tuple[int, int]]:
    """Pairs of message and the message that stands first in its thread."""
    for root in forest.roots:
        stack = [root]
        first = NONE
        while stack:
            node = stack.pop()
            if node < forest.messages:
                first = node if first == NONE else first
                yield node, first
            stack.extend(reversed(forest.children.get(node, ())))

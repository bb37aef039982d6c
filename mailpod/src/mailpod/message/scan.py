"""The offset scanner: a message's MIME tree (RFC 2045, RFC 2046) as byte offsets, whatever the bytes are.

One search for each boundary inside the range that the enclosing one leaves, so cost is the message's size times its depth, and capped.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from mailpod.limits import message as limits
from mailpod.message.headers import body_offset, collect
from mailpod.message.parameters import ContentType, Parameters, parameter, parse_content_type
from mailpod.message.summary import Part

# RFC 9051 §6.4.5 and §7.5.2 need nothing else of a part's header.
MIME_FIELDS = frozenset(
    {
        b"content-type",
        b"content-transfer-encoding",
        b"content-disposition",
        b"content-id",
        b"content-description",
        b"content-language",
        b"content-location",
        b"content-md5",
    }
)
ENVELOPE_FIELDS = frozenset(
    {
        b"date",
        b"subject",
        b"from",
        b"sender",
        b"reply-to",
        b"to",
        b"cc",
        b"bcc",
        b"in-reply-to",
        b"message-id",
        b"references",
    }
)
MESSAGE_FIELDS = MIME_FIELDS | ENVELOPE_FIELDS

Fields = dict[bytes, list[bytes]]

_TEXT_PLAIN = ContentType(b"text", b"plain", ())
_MESSAGE_RFC822 = ContentType(b"message", b"rfc822", ())
_OCTETS = ContentType(b"application", b"octet-stream", ())


class Node:
    """One part while a message is looked at: its offsets, its header's fields, its children."""

    __slots__ = ("body_end", "body_start", "children", "content", "encoding", "fields", "header_start", "kind", "lines", "path")

    def __init__(self, path: str, header_start: int, body_end: int) -> None:
        self.path = path
        self.header_start = header_start
        self.body_start = header_start
        self.body_end = body_end
        self.content: ContentType = _TEXT_PLAIN
        self.encoding = b"7bit"
        self.kind = ""
        self.lines = 0  # line feeds in the body, where BODY tells them (text and message parts)
        self.fields: Fields = {}
        self.children: list[Node] = []

    @property
    def parameters(self) -> Parameters:
        """Of the Content-Type."""
        return self.content.parameters


class Tree(NamedTuple):
    """A message's parts in document order, root first, and whether limits cut the tree short."""

    nodes: list[Node]
    truncated: str  # "" or the limit that was reached: "depth", "parts", "headers", "work"

    @property
    def root(self) -> Node:
        """The message itself."""
        return self.nodes[0]


class _Delimiter(NamedTuple):
    start: int  # of the line feed before it
    end: int  # after its own line
    closing: bool


class _Frame:
    """A multipart whose children are being found."""

    __slots__ = ("default", "delimiter", "depth", "needle", "node", "prefix")

    def __init__(self, node: Node, needle: bytes, depth: int, prefix: str) -> None:
        self.node = node
        self.needle = needle
        self.depth = depth
        self.prefix = prefix
        # RFC 2046 §5.1.5: parts of a digest are messages unless they say otherwise
        self.default = _MESSAGE_RFC822 if node.content.subtype == b"digest" else _TEXT_PLAIN
        self.delimiter: _Delimiter | None = None


class _Scanner:
    """One scan. Iterative: `frames` are the multiparts that are open."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.nodes: list[Node] = []
        self.frames: list[_Frame] = []
        self.truncated = ""
        self.header_bytes_left = limits.MIME_HEADERS_BYTES_MAX
        self.work_left = max(limits.SCAN_BYTES_MIN, limits.SCAN_PASSES_MAX * len(raw))

    def run(self) -> Tree:
        self._open(Node("", 0, len(self.raw)), _TEXT_PLAIN, 0, "", message=True)
        while self.frames:
            self._next_child(self.frames[-1])
        _count_lines(self.raw, self.nodes)
        return Tree(self.nodes, self.truncated)

    def _open(self, node: Node, default: ContentType, depth: int, prefix: str, *, message: bool) -> None:
        """Read the header of `node`; begin a multipart's children, go on with what an embedded message holds."""
        while True:
            self.nodes.append(node)
            self._read_header(node, default, message=message)
            if node.content.type == b"multipart":
                boundary = parameter(node.content.parameters, b"boundary")
                if depth >= limits.MIME_DEPTH_MAX:
                    self._too_deep(node)
                    return
                node.kind = "multipart"
                if message and node.path:
                    node.path = prefix  # an embedded message's multipart root has no number of its own (RFC 9051 §6.4.5)
                if boundary and len(boundary) <= limits.BOUNDARY_BYTES_MAX:
                    frame = _Frame(node, b"\n--" + boundary, depth, prefix)
                    frame.delimiter = self._find(frame.needle, max(node.body_start - 1, 0), node.body_end)
                    self.frames.append(frame)
                return
            if node.content.type != b"message" or node.content.subtype not in (b"rfc822", b"global"):
                return
            if depth >= limits.MIME_DEPTH_MAX or len(self.nodes) >= limits.MIME_PARTS_MAX:
                self._too_deep(node)
                return
            node.kind = "message"
            # RFC 9051 §6.4.5: below part P (the message itself: ""), numbering starts anew; its text, when no multipart, is P.1
            prefix = f"{node.path or '1'}."
            inner = Node(prefix + "1", node.body_start, node.body_end)
            node.children.append(inner)
            node, default, depth, message = inner, _TEXT_PLAIN, depth + 1, True

    def _read_header(self, node: Node, default: ContentType, *, message: bool) -> None:
        raw = self.raw
        node.body_start = body = body_offset(raw, node.header_start, node.body_end)
        cap = limits.MIME_HEADER_BYTES_MAX if node.header_start else limits.HEADER_BYTES_MAX
        size = min(body - node.header_start, cap)
        if size > self.header_bytes_left:
            self.truncated = self.truncated or "headers"
            size = self.header_bytes_left
        self.header_bytes_left -= size
        node.content = default
        if not size:
            return
        found = collect(raw[node.header_start : node.header_start + size], MESSAGE_FIELDS if message else MIME_FIELDS)
        node.fields = found
        if (values := found.get(b"content-type")) is not None:
            node.content = parse_content_type(values[0]) or default
        if (values := found.get(b"content-transfer-encoding")) is not None:
            # RFC 2045 §6.1: one token; what follows it (a comment, a second one) is dropped
            node.encoding = values[0].split(b";")[0].split(b"(")[0].strip(b' \t"').lower() or b"7bit"

    def _too_deep(self, node: Node) -> None:
        self.truncated = self.truncated or "depth"
        node.content = _OCTETS  # no tree below it: a client must not look for one

    def _next_child(self, frame: _Frame) -> None:
        delimiter = frame.delimiter
        if delimiter is None or delimiter.closing:
            self.frames.pop()
            return
        parent = frame.node
        full = len(self.nodes) >= limits.MIME_PARTS_MAX - 1
        following = None if full else self._find(frame.needle, delimiter.end - 1, parent.body_end)
        if full:
            self.truncated = self.truncated or "parts"
            self.frames.clear()
        end = parent.body_end
        if following is not None:
            end = following.start
            if end > delimiter.end and self.raw[end - 1] == 13:  # RFC 2046 §5.1.1: the CRLF before it belongs to the delimiter
                end -= 1
        frame.delimiter = following
        start = min(delimiter.end, parent.body_end)
        child = Node(f"{frame.prefix}{len(parent.children) + 1}", start, max(end, start))
        parent.children.append(child)
        if full:  # the rest stays in this part, as it is
            self.nodes.append(child)
            child.content = _OCTETS
        else:
            self._open(child, frame.default, frame.depth + 1, child.path + ".", message=False)

    def _find(self, needle: bytes, position: int, end: int) -> _Delimiter | None:
        """The next delimiter line (RFC 2046 §5.1.1) whose line feed before it is at `position` or later."""
        raw = self.raw
        begun = position
        while self.work_left > 0:
            start = raw.find(needle, position, end)
            if start < 0:
                self.work_left -= end - begun
                return None
            after = start + len(needle)
            line_end = raw.find(b"\n", after, min(end, after + limits.DELIMITER_TAIL_BYTES_MAX))
            if line_end < 0:
                line_end = end if end - after <= limits.DELIMITER_TAIL_BYTES_MAX else -1
            tail = raw[after:line_end].rstrip(b" \t\r") if line_end >= 0 else b"?"
            if not tail or tail == b"--":
                self.work_left -= start - begun
                return _Delimiter(start, min(line_end + 1, end), bool(tail))
            self.work_left -= limits.SCAN_CANDIDATE_BYTES
            position = after
        self.truncated = self.truncated or "work"
        return None


def scan(raw: bytes) -> Tree:
    """The MIME tree of a message. Total: any bytes have one; its size and cost are bounded by `limits.message`."""
    return _Scanner(raw).run()


def parts(tree: Tree) -> tuple[Part, ...]:
    """The tree as the store keeps it."""
    return tuple(
        Part(
            node.path,
            node.header_start,
            node.body_start,
            node.body_end,
            f"{_text(node.content.type)}/{_text(node.content.subtype)}",
            _text(node.encoding),
            charset(node),
            node.kind,
        )
        for node in tree.nodes
    )


def charset(node: Node) -> str:
    """A text part's charset, lower case: as it says, else us-ascii (RFC 2046 §4.1.2); "" for parts that are no text."""
    found = parameter(node.content.parameters, b"charset") if node.content.parameters else None
    if found:
        return _text(found.strip().lower())
    return "us-ascii" if node.content.type == b"text" else ""


def _text(value: bytes) -> str:
    return value[: limits.PARAMETER_BYTES_MAX].decode("utf-8", "replace")


def count_lines(raw: bytes, start: int, end: int) -> int:
    """Line feeds in [start, end)."""
    if end - start < 2048:
        return raw.count(b"\n", start, end)
    total = 0
    for at in range(start, end, 1 << 20):  # in chunks: the comparison makes an array of the same size
        total += int(np.count_nonzero(np.frombuffer(raw, np.uint8, min(1 << 20, end - at), at) == 10))
    return total


def _count_lines(raw: bytes, nodes: list[Node]) -> None:
    """Fill in `lines`; every byte is looked at once, however deep messages are nested."""
    counted = [node for node in nodes if node.kind == "message" or node.content.type == b"text"]
    if len(counted) == 1:
        counted[0].lines = count_lines(raw, counted[0].body_start, counted[0].body_end)
        return
    edges = sorted({edge for node in counted for edge in (node.body_start, node.body_end)})
    before = dict.fromkeys(edges[:1], 0)
    for start, end in itertools.pairwise(edges):
        before[end] = before[start] + count_lines(raw, start, end)
    for node in counted:
        node.lines = before[node.body_end] - before[node.body_start]

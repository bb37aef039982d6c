"""IMAP BODY and BODYSTRUCTURE (RFC 9051 §7.5.2) from the scanner's tree, bottom-up without recursion."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

from mailpod.message.envelope import build_envelope
from mailpod.message.nstring import latin, nstring
from mailpod.message.parameters import Parameters, parse_disposition, parse_languages
from mailpod.message.scan import Node, Tree

_WORD_BYTES_MAX = 40


@functools.lru_cache(maxsize=2048)
def _cached(value: bytes) -> str:
    return nstring(latin(value))


def _word(value: bytes) -> str:
    """The few words that nearly all mail is made of: types, encodings, names of parameters."""
    return _cached(value) if len(value) <= _WORD_BYTES_MAX else nstring(latin(value))


# A multipart must have a part (RFC 9051 §9 body-type-mpart), so one that has none shows an empty text; Dovecot does the same.
_EMPTY_TEXT = '("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'


class Structure(NamedTuple):
    """Both forms; bytes as Latin-1 characters."""

    body: str
    bodystructure: str


def build_structure(tree: Tree) -> Structure:
    """BODY and BODYSTRUCTURE of a message."""
    done: dict[int, Structure] = {}
    for node in reversed(tree.nodes):  # children stand behind their parents
        children = [done.pop(id(child)) for child in node.children]
        if node.kind == "multipart":
            done[id(node)] = _multipart(node, children)
        else:
            done[id(node)] = _single(node, children)
    return done[id(tree.root)]


def _multipart(node: Node, children: list[Structure]) -> Structure:
    subtype = _word(node.content.subtype)
    if not children:
        children = [Structure(_EMPTY_TEXT + ")", _EMPTY_TEXT + " NIL NIL NIL NIL)")]
    body = f"({''.join([child.body for child in children])} {subtype})"
    parts = "".join([child.bodystructure for child in children])
    return Structure(body, f"({parts} {subtype} {_parameters(node.parameters)}{_extension(node.fields)})")


def _single(node: Node, children: list[Structure]) -> Structure:
    content, fields = node.content, node.fields
    parameters = content.parameters
    if content.type == b"text" and not any(name in (b"charset", b"charset*") for name, _ in parameters):
        parameters = ((b"charset", b"us-ascii"), *parameters)  # RFC 2046 §4.1.2; clients count on it
    out = (
        f"({_word(content.type)} {_word(content.subtype)} {_parameters(parameters)} "
        f"{_field(fields, b'content-id')} {_field(fields, b'content-description')} {_word(node.encoding)} "
        f"{node.body_end - node.body_start}"
    )
    extended = out
    if node.kind == "message":
        envelope = build_envelope(node.children[0].fields).wire
        out = f"{out} {envelope} {children[0].body} {node.lines}"
        extended = f"{extended} {envelope} {children[0].bodystructure} {node.lines}"
    elif content.type == b"text":
        out = extended = f"{out} {node.lines}"
    return Structure(out + ")", f"{extended} {_field(fields, b'content-md5')}{_extension(fields)})")


def _extension(fields: Mapping[bytes, list[bytes]]) -> str:
    """Disposition, language and location."""
    if not fields:
        return " NIL NIL NIL"
    found = fields.get(b"content-disposition")
    disposition = parse_disposition(found[0]) if found else None
    shown = f"({_word(disposition.kind)} {_parameters(disposition.parameters)})" if disposition else "NIL"
    found = fields.get(b"content-language")
    tags = parse_languages(found[0]) if found else ()
    languages = f"({' '.join([_word(tag) for tag in tags])})" if tags else "NIL"
    return f" {shown} {languages} {_field(fields, b'content-location')}"


def _field(fields: Mapping[bytes, list[bytes]], name: bytes) -> str:
    found = fields.get(name)
    return nstring(latin(found[0])) if found else "NIL"


def _parameters(parameters: Parameters) -> str:
    if not parameters:
        return "NIL"
    return "(" + " ".join([f"{_word(name)} {nstring(latin(value))}" for name, value in parameters]) + ")"

"""YAML text to typed resources. Strict: duplicate keys, anchors and unknown fields are refused with a sentence, not guessed at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import yaml

from mailoperator.api import mailbox, maildomain
from mailoperator.api.mailbox import Mailbox
from mailoperator.api.maildomain import MailDomain
from mailoperator.api.problems import Problem
from mailoperator.api.resources import API_VERSION, Fault, ObjectMeta, Secret, secret_of

TEXT_BYTES_MAX: Final = 16 * 1024**2  # of one file; etcd takes 1.5 MiB an object, a file may hold many
NESTING_MAX: Final = 64


@dataclass(slots=True)
class Resources:
    """What was read. Lists are in no particular order; builders sort."""

    domains: list[MailDomain] = field(default_factory=list)
    mailboxes: list[Mailbox] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)  # static ones: the API server would have refused the object


class _Loader(yaml.SafeLoader):
    """SafeLoader without time stamps (metadata has strings), without duplicate keys, without anchors (their expansion has no bound)."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases are not read; write the value out")
        self.depth += 1
        if self.depth > NESTING_MAX:
            raise yaml.YAMLError(f"nested more than {NESTING_MAX} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key must be plain text, line {key.start_mark.line + 1}")
            if key.value in seen:
                raise yaml.YAMLError(f"the key {key.value!r} is there twice, line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(texts: Iterable[tuple[str, str]]) -> Resources:
    """Resources from (source name, YAML text) pairs; what cannot be read, or breaks a static rule, becomes a problem and is left out."""
    found = Resources()
    seen: dict[tuple[str, str, str], str] = {}
    for source, text in texts:
        for document in _documents(source, text, found.problems):
            _add(source, document, found, seen)
    return found


def _documents(source: str, text: str, problems: list[Problem]) -> Iterator[dict[str, Any]]:
    def refuse(message: str) -> None:
        problems.append(Problem("File", "", source, "", "Unreadable", message))

    if len(text) > TEXT_BYTES_MAX:
        refuse(f"is larger than {TEXT_BYTES_MAX} bytes")
        return
    try:
        documents = list(yaml.load_all(text, _Loader))
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        refuse(f"is not YAML as it is read here: {' '.join(str(error).split())}")
        return
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        if not isinstance(document, dict):
            refuse(f"document {number} must be an object with apiVersion, kind and metadata")
        elif document.get("kind") == "List" and isinstance(document.get("items"), list):
            yield from (item for item in document["items"] if isinstance(item, dict))
        else:
            yield document


def _add(source: str, document: dict[str, Any], found: Resources, seen: dict[tuple[str, str, str], str]) -> None:
    group, kind = str(document.get("apiVersion", "")), str(document.get("kind", ""))
    if (group, kind) not in ((API_VERSION, "MailDomain"), (API_VERSION, "Mailbox"), ("v1", "Secret")):
        if group.startswith("postroom.dev/"):
            message = f"this version reads MailDomain and Mailbox of {API_VERSION}; not {kind or 'an object without a kind'} of {group}"
            found.problems.append(Problem(kind, *_identity(document), "", "UnknownKind", message))
        return  # what else lies beside (a Namespace, a ConfigMap) is none of ours
    try:
        meta = msgspec.convert(document.get("metadata"), ObjectMeta)
        key = (kind, *meta.key)
        if key in seen:
            message = f"is there twice: in {seen[key]} and in {source}"
            found.problems.append(Problem(kind, *meta.key, "", "Duplicate", message))
            return
        seen[key] = source
        if kind == "Secret":
            found.secrets.append(secret_of(document))
        elif kind == "MailDomain":
            domain = msgspec.convert(document, MailDomain)
            if not _refuse(kind, meta, maildomain.faults(domain), found):
                found.domains.append(domain)
        else:
            box = msgspec.convert(document, Mailbox)
            if not _refuse(kind, meta, mailbox.faults(box), found):
                found.mailboxes.append(box)
    except msgspec.ValidationError as error:
        found.problems.append(Problem(kind, *_identity(document), *_said(str(error))))
    except ValueError as error:
        found.problems.append(Problem(kind, *_identity(document), "", "Invalid", str(error)))


def _refuse(kind: str, meta: ObjectMeta, faults: Iterable[Fault], found: Resources) -> bool:
    problems = [Problem(kind, *meta.key, fault.path, "Invalid", fault.message) for fault in faults]
    found.problems.extend(problems)
    return bool(problems)


def _identity(document: dict[str, Any]) -> tuple[str, str]:
    meta = document.get("metadata")
    if not isinstance(meta, dict):
        return "default", "?"
    return str(meta.get("namespace", "default")), str(meta.get("name", "?"))


def _said(message: str) -> tuple[str, str, str]:
    """msgspec's "Expected `int`, got `str` - at `$.spec.quota`" as path, reason, sentence."""
    text, _, where = message.partition(" - at `")
    path = where.rstrip("`").removeprefix("$").removeprefix(".")
    if text.startswith("Object contains unknown field `"):
        name = text.split("`")[1]
        return path, "UnknownField", f"has no field {name!r} in this version; remove it"
    if text.startswith("Object missing required field `"):
        return path, "Invalid", f"needs the field {text.split('`')[1]!r}"
    return path, "Invalid", text[:1].lower() + text[1:].replace("`", "")

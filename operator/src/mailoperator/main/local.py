"""Resources from a folder, and what must be remembered between two renders: the fleet's keys and generated passwords.

In a cluster those are Secrets; on a laptop they are Secrets too, in a file beside the output.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import yaml

from mailoperator.api.documents import Resources, read
from mailoperator.api.resources import MANAGED_BY, MANAGED_BY_LABEL, ObjectMeta, Secret
from mailoperator.desired.claims import Key
from mailoperator.desired.podconfig import Keys, Placement, Rendered, build
from mailoperator.main import output
from mailpod import contract

KEYS_SUFFIX: Final = "-fleet"
SUFFIXES: Final = (".yaml", ".yml", ".json")


def load(folder: Path, remembered: Path | None = None) -> Resources:
    """All resources of the YAML files below `folder`, and the Secrets of the file `remembered`."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    texts = [(str(path.relative_to(folder)), path.read_bytes().decode(errors="replace")) for path in paths]
    if remembered is not None and remembered.is_file() and remembered.resolve() not in [path.resolve() for path in paths]:
        texts.append((str(remembered), remembered.read_text()))
    return read(texts)


def fleets(resources: Resources) -> list[Key]:
    """The MailDomains that run pods."""
    return sorted(domain.metadata.key for domain in resources.domains if domain.spec.pods is not None)


def keys_of(resources: Resources, fleet: Key) -> tuple[Keys, Secret | None]:
    """The fleet's keys; made, as a Secret to be written, when there are none."""
    name = fleet[1] + KEYS_SUFFIX
    for secret in resources.secrets:
        if secret.metadata.key == (fleet[0], name) and secret.ours:
            return Keys(*(bytes.fromhex(secret.values[entry].decode()) for entry in ("fleet.key", "fingerprint.key"))), None
    keys = Keys(os.urandom(32), os.urandom(32))
    meta = ObjectMeta(name=name, namespace=fleet[0], labels={MANAGED_BY_LABEL: MANAGED_BY})
    values = {"fleet.key": keys.fleet.hex().encode(), "fingerprint.key": keys.fingerprint.hex().encode()}
    return keys, Secret(metadata=meta, values=values)


def previous_of(files: Mapping[str, bytes]) -> dict[tuple[str, str], contract.Credential]:
    """The credentials of a configuration in force; what cannot be read counts as none and is made anew."""
    found = {}
    for name, data in files.items():
        if name.startswith("mailboxes-"):
            try:
                shard = msgspec.json.decode(data, type=contract.Shard)
            except msgspec.DecodeError:
                continue
            for box in shard.mailboxes:
                found.update({(box.address, credential.name): credential for credential in box.credentials})
    return found


def render(resources: Resources, fleet: Key, out: Path, placement: Placement, remembered: Path) -> tuple[Rendered, bool]:
    """Build and put in force; returns the outcome and whether a file changed."""
    keys, made_keys = keys_of(resources, fleet)
    result = build(resources, fleet, keys, os.urandom, placement, previous_of(output.current(out)))
    if result.files is None:
        return result, False
    fresh = [*([made_keys] if made_keys is not None else []), *result.made]
    if fresh:
        # Before the configuration: a password that is in force and in no file would be lost.
        old = remembered.read_text() if remembered.is_file() else ""
        text = "".join("---\n" + yaml.safe_dump(_manifest(secret), sort_keys=False, allow_unicode=True) for secret in fresh)
        output.write_private(remembered, (old + text).encode())
    return result, output.write(out, result.files, result.generation)


def _manifest(secret: Secret) -> dict[str, object]:
    meta = secret.metadata
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": meta.name, "namespace": meta.namespace, "labels": dict(meta.labels)},
        "stringData": {key: value.decode() for key, value in secret.values.items()},
    }

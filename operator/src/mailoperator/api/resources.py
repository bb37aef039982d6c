"""What all kinds share: metadata, references, Secrets, and the order in which older beats younger."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final, Generic, NamedTuple, TypeVar

import msgspec

API_VERSION: Final = "postroom.dev/v1alpha1"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "postroom"


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The part of Kubernetes' metadata that matters here; the rest is ignored."""

    name: str
    namespace: str = "default"
    uid: str = ""
    creation_timestamp: str = ""
    labels: dict[str, str] = {}

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def age(self) -> tuple[str, str, str, str]:
        """Sorts oldest first. Files have no timestamps, so there the name decides, whatever the order of the files."""
        return self.creation_timestamp, self.uid, self.namespace, self.name


class Ref(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another object in the same namespace."""

    name: str


class SecretKeyRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key of a Secret in the same namespace; "" takes the default key of the place where it stands."""

    name: str
    key: str = ""


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A v1 Secret. `values` are the decoded bytes by key."""

    metadata: ObjectMeta
    values: dict[str, bytes]

    @property
    def ours(self) -> bool:
        """Made by the operator, rather than given."""
        return self.metadata.labels.get(MANAGED_BY_LABEL) == MANAGED_BY


class _RawSecret(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    metadata: ObjectMeta
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None


def secret_of(document: object) -> Secret:
    """A Secret from its document; stringData wins over data, as in the API server. Raises msgspec.ValidationError, ValueError."""
    raw = msgspec.convert(document, _RawSecret)
    values: dict[str, bytes] = {}
    for key, value in (raw.data or {}).items():
        try:
            values[key] = base64.b64decode(value.translate({10: None, 13: None, 32: None}), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"data.{key}: must be base64 ({error}); plain text goes to stringData") from None
    values.update({key: value.encode() for key, value in (raw.string_data or {}).items()})
    return Secret(metadata=raw.metadata, values=values)


S = TypeVar("S")


class Resource(msgspec.Struct, Generic[S], frozen=True, rename="camel", kw_only=True):
    """An object of one of our kinds. `status` and the like are ignored."""

    api_version: Annotated[str, msgspec.Meta(min_length=1)]
    kind: str
    metadata: ObjectMeta
    spec: S


class Fault(NamedTuple):
    """What a static rule found: where, and the sentence."""

    path: str
    message: str

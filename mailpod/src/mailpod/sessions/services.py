"""What all sessions of a pod share."""

from __future__ import annotations

from dataclasses import dataclass

from mailpod.auth.authenticator import Authenticator
from mailpod.directory.directory import Directory
from mailpod.ports import Clock, Entropy, Offload
from mailpod.store.facade import MailStore


@dataclass(slots=True)
class Services:
    """One per pod. `directory` is replaced on reload; read it anew for each decision."""

    hostname: str
    store: MailStore
    directory: Directory
    authenticator: Authenticator
    clock: Clock
    entropy: Entropy
    offload: Offload

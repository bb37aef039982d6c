"""Mailbox: one person's (or team's) mail in a domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from mailoperator.api.maildomain import one_of, protocol_faults, quota_faults
from mailoperator.api.names import address_fault, domain_object_fault, line_fault, local_fault, object_fault
from mailoperator.api.quantities import Quantity
from mailoperator.api.resources import Fault, Ref, Resource, SecretKeyRef
from mailpod.contract import MailboxState

DISPLAY_NAME_CHARS_MAX: Final = 256
ALIASES_MAX: Final = 256
APP_PASSWORDS_MAX: Final = 16  # each costs one slow hash when an unknown password is tried
PASSWORD_FORMATS: Final = ("Plain", "PHC")


class Password(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Where the password is. Plain: the password itself; PHC: an argon2id verifier made elsewhere."""

    secret_ref: SecretKeyRef
    format: str = "Plain"


class AppPassword(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A further password, for one program."""

    name: str
    secret_ref: SecretKeyRef
    protocols: tuple[str, ...] | None = None


class MailboxSpec(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What the administrator wants of a mailbox."""

    domain_ref: Ref
    local_part: str | None = None
    display_name: str = ""
    aliases: tuple[str, ...] = ()
    password: Password | None = None
    app_passwords: tuple[AppPassword, ...] = ()
    quota: Quantity | None = None
    protocols: tuple[str, ...] | None = None
    state: str = MailboxState.ACTIVE


Mailbox = Resource[MailboxSpec]


def faults(resource: Mailbox) -> Iterator[Fault]:
    """Every static rule that the resource breaks."""
    spec = resource.spec
    if message := object_fault(resource.metadata.name):
        yield Fault("metadata.name", message)
    if message := domain_object_fault(spec.domain_ref.name):
        yield Fault("spec.domainRef.name", message)
    if spec.local_part is None and (message := local_fault(resource.metadata.name)):
        yield Fault("metadata.name", f"is the local part while spec.localPart is left out, and {message}")
    if spec.local_part is not None and (message := local_fault(spec.local_part)):
        yield Fault("spec.localPart", message)
    if message := line_fault(spec.display_name, DISPLAY_NAME_CHARS_MAX):
        yield Fault("spec.displayName", message)
    if len(spec.aliases) > ALIASES_MAX:
        yield Fault("spec.aliases", f"must be at most {ALIASES_MAX}, not {len(spec.aliases)}")
    for index, alias in enumerate(spec.aliases):
        if message := address_fault(alias):
            yield Fault(f"spec.aliases[{index}]", message)
        if alias in spec.aliases[:index]:
            yield Fault(f"spec.aliases[{index}]", f"{alias} is there twice")
    yield from _password_faults(spec)
    if spec.quota is not None:
        yield from quota_faults("spec.quota", spec.quota)
    if spec.protocols is not None:
        yield from protocol_faults("spec.protocols", spec.protocols)
    yield from one_of("spec.state", spec.state, tuple(MailboxState))


def _password_faults(spec: MailboxSpec) -> Iterator[Fault]:
    if spec.password is not None:
        yield from one_of("spec.password.format", spec.password.format, PASSWORD_FORMATS)
        if message := object_fault(spec.password.secret_ref.name):
            yield Fault("spec.password.secretRef.name", message)
    if len(spec.app_passwords) > APP_PASSWORDS_MAX:
        yield Fault("spec.appPasswords", f"must be at most {APP_PASSWORDS_MAX}, not {len(spec.app_passwords)}")
    names: set[str] = set()
    for index, app in enumerate(spec.app_passwords):
        path = f"spec.appPasswords[{index}]"
        if message := object_fault(app.name):
            yield Fault(f"{path}.name", message)
        if app.name in names:
            yield Fault(f"{path}.name", f"{app.name} is there twice")
        names.add(app.name)
        if message := object_fault(app.secret_ref.name):
            yield Fault(f"{path}.secretRef.name", message)
        if app.protocols is not None:
            yield from protocol_faults(f"{path}.protocols", app.protocols)

"""Who has which domain and which address: conflicts between resources, decided alike whatever order they were read in.

Older beats younger (creationTimestamp, uid, then name). The loser is not served, and its problem never names another namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mailoperator.api.mailbox import Mailbox
from mailoperator.api.maildomain import MailDomain
from mailoperator.api.names import normal_local
from mailoperator.api.problems import Problem

Key = tuple[str, str]  # namespace, name


@dataclass(slots=True)
class Domains:
    """The domains that are served, by resource and by name."""

    served: dict[Key, MailDomain] = field(default_factory=dict)
    aliases: dict[Key, tuple[str, ...]] = field(default_factory=dict)  # those of aliasDomains that are the domain's
    owners: dict[str, Key] = field(default_factory=dict)  # domain or alias domain -> MailDomain
    hosts: dict[Key, Key] = field(default_factory=dict)  # MailDomain -> the one whose pods serve it
    problems: list[Problem] = field(default_factory=list)


def claim_domains(resources: Iterable[MailDomain]) -> Domains:
    """Every domain name to the oldest that claims it; hostedByRef resolved."""
    found = Domains()
    every = sorted(resources, key=lambda resource: resource.metadata.age)
    by_key = {resource.metadata.key: resource for resource in every}
    for resource in every:
        key, spec = resource.metadata.key, resource.spec
        if (message := _unhosted(resource, by_key)) is not None:
            found.problems.append(Problem("MailDomain", *key, "spec.hostedByRef", "HostNotFound", message))
            continue
        if spec.domain in found.owners:
            message = f"{spec.domain} is claimed by an older MailDomain; it is not served here"
            found.problems.append(Problem("MailDomain", *key, "spec.domain", "DomainClaimed", message))
            continue
        found.served[key] = resource
        found.owners[spec.domain] = key
        found.hosts[key] = key if spec.hosted_by_ref is None else (key[0], spec.hosted_by_ref.name)
        mine = []
        for alias in sorted(spec.alias_domains):
            if alias in found.owners:
                message = f"{alias} is claimed by an older MailDomain; it is not an alias here"
                found.problems.append(Problem("MailDomain", *key, "spec.aliasDomains", "DomainClaimed", message))
            else:
                found.owners[alias] = key
                mine.append(alias)
        found.aliases[key] = tuple(mine)
    _drop_orphans(found)
    return found


def _unhosted(resource: MailDomain, by_key: dict[Key, MailDomain]) -> str | None:
    ref = resource.spec.hosted_by_ref
    if ref is None:
        return None
    host = by_key.get((resource.metadata.namespace, ref.name))
    if host is None:
        return f"there is no MailDomain {ref.name} in this namespace"
    return None if host.spec.pods is not None else f"MailDomain {ref.name} runs no pods itself; name the one that does"


def _drop_orphans(found: Domains) -> None:
    """A domain whose host lost its own claim has no pods."""
    for key, host in list(found.hosts.items()):
        if host not in found.served:
            message = f"MailDomain {host[1]} is not served, so neither is this one"
            found.problems.append(Problem("MailDomain", *key, "spec.hostedByRef", "HostNotFound", message))
            del found.served[key], found.hosts[key], found.aliases[key]
            for name in [name for name, owner in found.owners.items() if owner == key]:
                del found.owners[name]


@dataclass(slots=True)
class Addresses:
    """The mailboxes of one fleet with the addresses that are theirs."""

    mailboxes: dict[Key, Mailbox] = field(default_factory=dict)  # oldest first
    address: dict[Key, str] = field(default_factory=dict)
    aliases: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def oldest_of(self, domain: str) -> str | None:
        """The address of the domain's oldest mailbox."""
        return next((address for address in self.address.values() if address.endswith(f"@{domain}")), None)


def role_locals(domain: MailDomain) -> frozenset[str]:
    """The reserved local parts; postmaster always (RFC 5321 §4.5.1)."""
    return frozenset((*map(normal_local, domain.spec.roles.addresses), "postmaster"))


def claim_addresses(resources: Iterable[Mailbox], domains: Domains, fleet: Key) -> Addresses:
    """Every address of the fleet to the oldest mailbox that has it; a mailbox's own address beats an alias of any age."""
    found = Addresses()
    taken: dict[str, Key] = {}
    for resource in sorted(resources, key=lambda resource: resource.metadata.age):
        key, spec = resource.metadata.key, resource.spec
        domain_key = (key[0], spec.domain_ref.name)
        domain = domains.served.get(domain_key)
        if domain is None:
            message = f"there is no MailDomain {spec.domain_ref.name} that is served in this namespace"
            found.problems.append(Problem("Mailbox", *key, "spec.domainRef", "DomainNotFound", message))
            continue
        if domains.hosts[domain_key] != fleet:
            continue
        local = normal_local(spec.local_part if spec.local_part is not None else resource.metadata.name)
        address = f"{local}@{domain.spec.domain}"
        if (problem := _reserved(key, local, domain, "spec.localPart")) is not None:
            found.problems.append(problem)
        elif address in taken:
            message = f"{address} is the address of the older Mailbox {taken[address][1]}"
            found.problems.append(Problem("Mailbox", *key, "spec.localPart", "AddressTaken", message))
        else:
            taken[address] = key
            found.mailboxes[key] = resource
            found.address[key] = address
    for key, resource in found.mailboxes.items():
        found.aliases[key] = tuple(sorted(_aliases(key, resource, domains, fleet, taken, found.problems)))
    return found


def _reserved(key: Key, local: str, domain: MailDomain, path: str) -> Problem | None:
    # Whoever reads admin@ or hostmaster@ is given certificates for the domain: only the mailbox that the domain's owner named may.
    owner = domain.spec.roles.mailbox_ref
    if local not in role_locals(domain) or (owner is not None and owner.name == key[1]):
        return None
    message = (
        f"{local} is reserved for the mailbox that MailDomain {domain.metadata.name} names in spec.roles.mailboxRef "
        f"({owner.name if owner else 'none so far'})"
    )
    return Problem("Mailbox", *key, path, "RoleAddressReserved", message)


def _aliases(key: Key, resource: Mailbox, domains: Domains, fleet: Key, taken: dict[str, Key], problems: list[Problem]) -> list[str]:
    mine: list[str] = []
    for alias in sorted(resource.spec.aliases):
        local, at, domain_name = alias.rpartition("@")
        owner = domains.owners.get(domain_name) if at else (key[0], resource.spec.domain_ref.name)
        if owner is None or domains.hosts[owner] != fleet:
            message = f"{alias}: {domain_name} is no domain of this fleet"
            problems.append(Problem("Mailbox", *key, "spec.aliases", "AliasDomainNotFound", message))
            continue
        domain = domains.served[owner]
        local = normal_local(local if at else alias)
        # An alias domain stands for the domain itself, so the alias is kept under the domain's own name.
        address = f"{local}@{domain.spec.domain}"
        if (problem := _reserved(key, local, domain, "spec.aliases")) is not None:
            problems.append(problem)
        elif (holder := taken.setdefault(address, key)) != key:
            message = f"{alias} belongs to Mailbox {holder[1]} already"
            problems.append(Problem("Mailbox", *key, "spec.aliases", "AddressTaken", message))
        elif address not in mine and holder == key and address != _own(resource, domains):
            mine.append(address)
    return mine


def _own(resource: Mailbox, domains: Domains) -> str:
    domain = domains.served[(resource.metadata.namespace, resource.spec.domain_ref.name)]
    local = resource.spec.local_part if resource.spec.local_part is not None else resource.metadata.name
    return f"{normal_local(local)}@{domain.spec.domain}"

"""Look-ups over one configuration: addresses to mailboxes, and what each mailbox may do."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import NamedTuple

from mailpod.contract import DomainConfig, MailboxConfig, MailboxState, PodConfig


class Match(enum.Enum):
    """By what a recipient address was found."""

    ADDRESS = "address"
    ALIAS = "alias"
    ROLE = "role"
    CATCH_ALL = "catch-all"


class Recipient(NamedTuple):
    """A local recipient: whose mailbox, by what rule, and the `+tag` that named a folder ("" for none)."""

    mailbox: MailboxConfig
    domain: DomainConfig
    match: Match
    tag: str


class Directory:
    """Immutable index of one configuration. A reload builds another one."""

    def __init__(self, config: PodConfig, mailboxes: Iterable[MailboxConfig]) -> None:
        self.config = config
        self._mailboxes: dict[str, MailboxConfig] = {}
        self._aliases: dict[str, MailboxConfig] = {}
        for mailbox in mailboxes:
            self._mailboxes[mailbox.address] = mailbox
            for alias in mailbox.aliases:
                self._aliases.setdefault(alias, mailbox)
        self._domains: dict[str, DomainConfig] = {}
        for domain in config.domains:
            for name in (domain.domain, *domain.alias_domains):
                self._domains.setdefault(name, domain)

    def __len__(self) -> int:
        return len(self._mailboxes)

    def domain(self, name: str) -> DomainConfig | None:
        """The configuration of a domain or alias domain of this fleet; `name` in lower-case A-labels."""
        return self._domains.get(name)

    def mailbox(self, address: str) -> MailboxConfig | None:
        """The mailbox whose own address this is (normalised, lower case)."""
        return self._mailboxes.get(address)

    def login(self, name: str) -> MailboxConfig | None:
        """The mailbox that a login name means: its address, or an alias of it, in any case."""
        name = name.lower()
        return self._mailboxes.get(name) or self._aliases.get(name)

    def recipient(self, local: str, domain_name: str) -> Recipient | None:
        """Who takes mail for local@domain (both normalised, lower case); None: unknown here, or not our domain.

        Order: mailbox, alias, the same without the tag, role address, catch-all. A mailbox that exists always beats a role address.
        """
        domain = self._domains.get(domain_name)
        if domain is None:
            return None
        found = self._exact(local, domain, "")
        if found is None and domain.recipient_delimiter:
            base, delimiter, tag = local.partition(domain.recipient_delimiter)
            if delimiter and base:
                found = self._exact(base, domain, tag)
        if found is None and domain.catch_all is not None:
            mailbox = self._mailboxes.get(domain.catch_all)
            found = Recipient(mailbox, domain, Match.CATCH_ALL, "") if mailbox is not None else None
        return found

    def _exact(self, local: str, domain: DomainConfig, tag: str) -> Recipient | None:
        # An alias domain stands for the domain itself: its addresses are looked up under the domain's own name.
        address = f"{local}@{domain.domain}"
        if (mailbox := self._mailboxes.get(address)) is not None:
            return Recipient(mailbox, domain, Match.ADDRESS, tag)
        if (mailbox := self._aliases.get(address)) is not None:
            return Recipient(mailbox, domain, Match.ALIAS, tag)
        if local in domain.role_addresses and domain.role_mailbox is not None:
            mailbox = self._mailboxes.get(domain.role_mailbox)
            return Recipient(mailbox, domain, Match.ROLE, tag) if mailbox is not None else None
        return None

    def may_send_as(self, mailbox: MailboxConfig, local: str, domain_name: str) -> bool:
        """Whether an address (normalised, lower case) is one of the mailbox's own: its address, an alias, or one with a tag."""
        found = self.recipient(local, domain_name)
        return found is not None and found.match in (Match.ADDRESS, Match.ALIAS) and found.mailbox.address == mailbox.address

    def accepts_login(self, mailbox: MailboxConfig) -> bool:
        """Whether the mailbox's state lets its owner log in."""
        return mailbox.state is MailboxState.ACTIVE

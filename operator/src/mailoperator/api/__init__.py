"""Typed views of MailDomain, Mailbox and the Secrets they name, with the static rules of their schemas, each a sentence.

Only fields that something obeys are here; an unknown one is refused, never dropped silently. RelayPolicy is not here, because no part of
the pod's configuration comes from it. Pure: no files, no cluster, no clock.
"""

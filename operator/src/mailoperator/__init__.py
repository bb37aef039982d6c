"""The operator: from MailDomain, Mailbox and RelayPolicy to running mail pods. It never imports mailpod beyond its contract."""

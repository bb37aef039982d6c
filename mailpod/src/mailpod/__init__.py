"""The mail server: SMTP, IMAP and POP3 over an account log in an S3-compatible bucket."""

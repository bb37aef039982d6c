"""Speed, measured beside Postfix and Dovecot on the same machine in the same run: `make bench` (programs, never timed tests).

CPU milliseconds per operation over a whole process tree are what to compare: wall times on a busy small machine vary by two.
"""

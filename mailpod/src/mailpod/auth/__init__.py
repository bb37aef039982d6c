"""Who may log in: password verifiers, SASL mechanisms, and the brakes on guessing.

Charter: equal answers and equal time for known and unknown users; no secret leaves this package, in no log and no error. Nothing here
knows a protocol's syntax: sessions hand over decoded bytes and get a challenge or a `LoginResult`.

| module | what |
|---|---|
| `authenticator` | the entry: `Authenticator.password`, `.sasl`, `.mechanisms` |
| `results` | `Outcome`, `LoginResult`, the reasons of refusals |
| `sasl` | PLAIN and LOGIN; strict base64 |
| `scram` | SCRAM-SHA-256 and -PLUS, the server's side |
| `verifiers` | `$argon2id$` and `$sha256$` strings, the cache of successes |
| `throttle` | growing delays by address and by account |
| `saslprep` | RFC 4013 |
"""

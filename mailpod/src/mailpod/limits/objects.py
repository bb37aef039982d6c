"""Limits of the bucket adapter."""

from __future__ import annotations

from typing import Final

# A dead endpoint has to be told from a slow one quickly: SMTP clients wait for our 250.
CONNECT_TIMEOUT_S: Final = 5
# A whole request, 8 MiB of entry over a slow link included; afterwards the outcome is unknown and is asked for by GET.
REQUEST_TIMEOUT_S: Final = 30
# Idempotent requests (GET, LIST, overwrite, DELETE) are repeated by the client; a create-only PUT never is.
IDEMPOTENT_RETRIES: Final = 2
# Above it an overwrite is sent in parts; below it one request is cheaper and atomic.
MULTIPART_ABOVE_BYTES: Final = 32 * 1024 * 1024
MULTIPART_CHUNK_BYTES: Final = 16 * 1024 * 1024
# Idle connections kept to the store: more than the commits in flight at full speed.
POOL_IDLE_CONNECTIONS: Final = 64

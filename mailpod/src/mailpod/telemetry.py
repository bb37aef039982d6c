"""Every metric that a pod exports, in one table, and the logger that redacts. Names follow Prometheus' conventions.

Labels are bounded: never an address, an account or a message id. Those go into log lines.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

# Sessions. protocol: smtp, submission, submissions, imap, imaps, pop3, pop3s
SESSIONS = Gauge("mailpod_sessions", "Open client sessions", ["protocol"], registry=REGISTRY)
SESSIONS_TOTAL = Counter("mailpod_sessions_started", "Client sessions since start", ["protocol"], registry=REGISTRY)
SESSION_ERRORS = Counter(
    "mailpod_session_errors",
    "Sessions that ended by a fault of ours or the client",
    ["protocol", "reason"],
    registry=REGISTRY,
)
COMMANDS = Counter("mailpod_commands", "Commands by verb and result", ["protocol", "command", "result"], registry=REGISTRY)
COMMAND_SECONDS = Histogram(
    "mailpod_command_seconds",
    "Time from a command's last byte to its last reply",
    ["protocol", "command"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
REPLIES = Counter("mailpod_smtp_replies", "SMTP replies by code and reason", ["protocol", "code", "reason"], registry=REGISTRY)
AUTH = Counter("mailpod_auth", "Authentications by mechanism and result", ["protocol", "mechanism", "result"], registry=REGISTRY)
TLS = Counter(
    "mailpod_tls_handshakes",
    "TLS handshakes by version and result",
    ["protocol", "version", "result"],
    registry=REGISTRY,
)

# Delivery
DELIVERIES = Counter("mailpod_deliveries", "Recipients by outcome and reason", ["outcome", "reason"], registry=REGISTRY)
DELIVERY_SECONDS = Histogram("mailpod_delivery_seconds", "Time from end of data to durable", buckets=_SECONDS, registry=REGISTRY)
MESSAGE_BYTES = Histogram(
    "mailpod_message_bytes",
    "Sizes of accepted messages",
    buckets=(1e3, 1e4, 1e5, 1e6, 5e6, 1e7, 2.5e7, 5e7),
    registry=REGISTRY,
)

# Store
STORE_OPERATIONS = Counter("mailpod_store_operations", "Bucket requests by kind and result", ["operation", "result"], registry=REGISTRY)
STORE_SECONDS = Histogram("mailpod_store_seconds", "Bucket request time", ["operation"], buckets=_SECONDS, registry=REGISTRY)
STORE_BYTES = Counter("mailpod_store_bytes", "Bytes sent to and read from the bucket", ["direction"], registry=REGISTRY)
COMMITS = Counter("mailpod_commits", "Commits by log kind and result", ["log", "result"], registry=REGISTRY)
COMMIT_BATCH = Histogram(
    "mailpod_commit_batch_operations",
    "Operations in one commit",
    ["log"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
    registry=REGISTRY,
)
COMMIT_SECONDS = Histogram("mailpod_commit_seconds", "Time an operation waits for its commit", ["log"], buckets=_SECONDS, registry=REGISTRY)
ACCOUNTS_OPEN = Gauge("mailpod_accounts_open", "Accounts held in memory", registry=REGISTRY)
QUARANTINED = Gauge("mailpod_accounts_quarantined", "Accounts whose data does not verify", registry=REGISTRY)
CACHE = Counter("mailpod_cache_lookups", "Body and summary cache look-ups by result", ["cache", "result"], registry=REGISTRY)
CACHE_BYTES = Gauge("mailpod_cache_bytes", "Bytes held by a cache", ["cache"], registry=REGISTRY)
TRANSIT_MESSAGES = Gauge("mailpod_transit_messages", "Accepted messages not yet everywhere, in logs that this pod holds", registry=REGISTRY)
TRANSIT_OLDEST = Gauge("mailpod_transit_oldest_seconds", "Age of the oldest of them", registry=REGISTRY)
PEER_NOTIFICATIONS = Counter("mailpod_peer_notifications", "Wake-ups between pods", ["direction", "result"], registry=REGISTRY)

# Configuration and process
CONFIG_LOADED = Gauge("mailpod_config_loaded", "1 for the configuration generation in force", ["generation"], registry=REGISTRY)
CONFIG_RELOADS = Counter("mailpod_config_reloads", "Reloads by result", ["result"], registry=REGISTRY)
READY = Gauge("mailpod_ready", "1 when /readyz says yes", registry=REGISTRY)
LOOP_LAG = Gauge("mailpod_event_loop_lag_seconds", "How late the event loop's last heartbeat was", registry=REGISTRY)

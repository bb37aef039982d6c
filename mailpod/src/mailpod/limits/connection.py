"""Limits of client connections (IMAP and POP3) and their TLS."""

from __future__ import annotations

from typing import Final

# Connections of one client (IPv4 address, IPv6 /64): an office behind one address with a few connections a client.
PER_ADDRESS_MAX: Final = 2_000
# Connections of the pod, about 30 KiB each while idle.
CONNECTIONS_MAX: Final = 20_000
# Connections that the kernel may hold before we accept them; a burst at start of work.
LISTEN_BACKLOG: Final = 1_024
# File descriptors that are not client connections: bucket, listeners, web, cache files.
OTHER_FILES: Final = 1_024

# How often all connections are looked at; timeouts are late by up to twice this. One sweep costs ~0.3 µs a connection.
SWEEP_S: Final = 2.0
# Connections looked at in one turn of the loop, so that a sweep over 20,000 holds nobody up.
SWEEP_SLICE: Final = 1_000
# A balancer sends its PROXY header with the handshake's last packet.
PROXY_HEADER_S: Final = 6.0
# From accepting, or from the OK to STARTTLS, to the end of the TLS handshake: four round trips on a bad radio link.
HANDSHAKE_S: Final = 20.0
# When so many are in the middle of one (up to 50 KiB each), it is a flood, and slow ones give way sooner.
HANDSHAKES_PRESSED: Final = 1_000
HANDSHAKE_PRESSED_S: Final = 4.0
# What a client may send before its handshake is done: a ClientHello with post-quantum keys, a certificate it was not asked for.
HANDSHAKE_BYTES_MAX: Final = 65_536
# After closing, until what is still queued for a client that does not read is thrown away.
CLOSE_LINGER_S: Final = 20.0
# A client that has closed its half may still read our answers for so long.
EOF_LINGER_S: Final = 60.0
# A client that reads nothing at all while we have something to send.
STALLED_WRITE_S: Final = 300.0

# Bytes queued in a transport before producers are asked to wait, and when they may go on.
WRITE_HIGH_BYTES: Final = 512 * 1024
WRITE_LOW_BYTES: Final = 128 * 1024
# Writes are gathered until the end of the loop's turn, but not beyond this: bulk data is fastest in pieces of 80-330 KB.
WRITE_GATHER_BYTES: Final = 128 * 1024
# A session that writes on although it was asked to wait is broken: its connection is cut here.
WRITE_QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024

# TLS works on pieces of one record: OpenSSL's memory buffers keep the size of the largest piece for the connection's life.
TLS_PIECE_BYTES: Final = 16 * 1024
# Session tickets for TLS 1.3: one suffices for one connection at a time, two (the default) double the cost.
TLS_TICKETS: Final = 1

# Inflated bytes handed over at a time, whatever the input claims to become.
INFLATE_PIECE_BYTES: Final = 64 * 1024
# Bytes handed to a session in one turn of the loop; the rest waits for others to have theirs.
TURN_BYTES_MAX: Final = 1024 * 1024
# Inflated bytes in all: a free part (one message of the largest size, all blanks), and beyond it a factor on what was received.
INFLATE_FREE_BYTES: Final = 64 * 1024 * 1024
INFLATE_RATIO_MAX: Final = 100
# Deflating: window and memory level of 32 KiB a session (the defaults take 256), and the fastest level.
DEFLATE_WINDOW_BITS: Final = 12
DEFLATE_MEMORY_LEVEL: Final = 5
DEFLATE_LEVEL: Final = 1

# A self-made certificate's life. Browsers' and Apple's limit for any certificate is 825 days; nobody renews this one but a restart.
SELF_SIGNED_DAYS: Final = 397

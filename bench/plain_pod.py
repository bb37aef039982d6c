"""A real pod whose port 143 takes passwords in plaintext, which the product refuses: only so can IMAP be measured without TLS.

Everything is `mailpod serve`, save that a connection to that port says to its session that TLS is in force. Nothing else differs: the bytes
pass the same connection class, unencrypted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mailpod.main import listening, serve
from mailpod.servers.connection import Connection, connection_factory
from mailpod.servers.registry import Connections, Endpoint
from mailpod.sessions.wire import TlsInfo


class _Plain(Connection):
    __slots__ = ()

    def _begin(self) -> None:
        self.tls = TlsInfo("TLSv1.3", "none: bench", None)
        super()._begin()


def _factory(connections: Connections, endpoint: Endpoint) -> Callable[[], Connection]:
    if endpoint.protocol != "imap":
        return connection_factory(connections, endpoint)
    metrics = connections.metrics(endpoint.protocol)
    return lambda: _Plain(connections, endpoint, metrics)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    setattr(listening, "connection_factory", _factory)  # noqa: B010 - mypy knows no assignment to what a module imported
    sys.exit(serve.run(serve.Options(options.config, options.data, None, None)))


if __name__ == "__main__":
    main()

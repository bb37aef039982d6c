"""ENABLE (RFC 5161), NAMESPACE (RFC 2342), COMPRESS (RFC 4978)."""

from __future__ import annotations

from mailpod.protocol.imap import commands, responses
from mailpod.sessions.imap.answers import Answer, no, ok
from mailpod.sessions.imap.capabilities import Capability, When
from mailpod.sessions.imap.state import ImapState, Spec
from mailpod.store.types import SEPARATOR

_SPELLING = {"IMAP4REV2": "IMAP4rev2"}  # as it is announced


async def enable(state: ImapState, command: commands.Enable) -> Answer:
    """RFC 5161 §3.1: unknown and unsupported names are ignored; what is new now is told."""
    enabled = [_SPELLING.get(name, name) for name in dict.fromkeys(command.capabilities) if state.enable(name)]
    state.write(responses.enabled(enabled))
    return ok("Enabled")


async def namespace(state: ImapState, _command: commands.Namespace) -> Answer:
    """One namespace: the user's own folders."""
    state.write(responses.namespace("", SEPARATOR))
    return ok("Namespace listed")


async def compress(state: ImapState, command: commands.Compress) -> Answer | None:
    """RFC 4978 §3: compression begins right after the tagged OK."""
    if command.mechanism != "DEFLATE":
        return no("Only DEFLATE is offered", "CANNOT", "unknown-mechanism")
    if state.compressed:
        return no("Compression is on already", "COMPRESSIONACTIVE", "compression-active")
    return state.begin_compression()


def _compress(state: ImapState) -> tuple[str, ...]:
    return () if state.compressed else ("COMPRESS=DEFLATE",)


COMMANDS = {
    commands.Enable: Spec(enable),
    commands.Namespace: Spec(namespace),
    commands.Compress: Spec(compress),
}
CAPABILITIES = (
    Capability("ENABLE", When.ALWAYS),
    Capability("NAMESPACE"),
    Capability("UTF8=ACCEPT"),
    Capability("COMPRESS=DEFLATE", When.AFTER_LOGIN, _compress),
)

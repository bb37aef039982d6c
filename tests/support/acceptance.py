"""docs/acceptance.md from the tests themselves: which test shows which case. `python -m tests.support.acceptance` writes it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "acceptance.md"

# What must survive. Cases that need a part which is not there yet (sending, filters, webmail, the operator in a cluster) come with it.
CASES = {
    1: 'Bare CR/LF/NUL "end of data" sequences inbound: one message or 5xx, never two (SMTP smuggling, CVE-2023-51764..6)',
    2: "The same bytes through submission and APPEND: refused, or stored byte for byte",
    3: "Commands pipelined behind STARTTLS/STLS: discarded, session state reset",
    4: "AUTH/LOGIN before TLS refused; plaintext after 220 discarded",
    5: "1 MiB command line, 100,000 address headers, 50 MB of headers: 5xx, under 1 s CPU",
    6: "1,000-deep MIME, 10,000 parts, message/rfc822 in itself, 10,000 RFC 2231 parameters: bounded; BODYSTRUCTURE answers",
    7: "NUL, 8-bit without 8BITMIME, truncated UTF-8: refused by policy or stored byte for byte",
    8: "CR, LF, \\x1c, U+2028 in any field that ends in a header: refused or encoded, no new header",
    9: "Empty and quoted local parts, source routes, nested comments, CVE-2023-27043 forms, IDN: as the RFCs say, or 501",
    10: "{4294967295+} and 10,000 literals, before and after login: BAD/[TOOBIG] or close; allocation never above the limit",
    11: "1,000,000 parentheses before login, deep OR/NOT: BAD, no recursion error",
    12: "SEARCH/SORT/THREAD over 100,000 messages, pathological References: capped, cancellable",
    13: "Oversized or aborted APPEND/MULTIAPPEND, 50 in parallel at the quota's edge: atomic; overshoot at most one message",
    14: "COMPRESS bomb: output capped",
    15: "Slowloris, many connections: timeouts, caps per IP; a new login in under 2 s",
    16: "Brute force, aborted SASL, bad base64: throttled; same error and same time for known and unknown users",
    17: "Forged Authentication-Results removed; clients cannot send as others",
    20: "Received > 50, unknown recipients: refused in session, no backscatter",
    21: "Relay attempts (%, !, source route, quoted) refused; too many recipients: 452; dictionary attacks slowed",
    22: "../, NUL, bad modified UTF-7 in mailbox names: NO/BAD; POP3 maildrops stable, both deleting is deleting once; UIDLs stable",
    23: "TLS < 1.2 refused; certificate reload drops no session; no secret in any log",
    25: "A resource naming another namespace's Secret is refused",
    26: "S3 500/503/slow/timeout at 10-100 %: 4xx, never a false 250; lost = 0; drains afterwards",
    27: "PUT applied but reply lost, and applied late: lost = 0, duplicates = 0",
    28: "kill -9 in every phase of DATA: nothing, or the whole message",
    29: "kill -9 just before and after 250: ok is stored; only unknowns may be double",
    30: "Pod cut off from S3, flapping: committed on the newest state or refused; UIDs never reused",
    32: "Clocks that jump and differ: no hold lost or held for ever; UIDVALIDITY unchanged",
    33: "Local disk full: no loss, and recovery without a restart",
    34: "OOM kill under load: lost = 0; serving again in < 30 s",
    35: "A pod that ends says BYE before exit, and finishes what it was doing",
    40: "A half-open peer: timeout; the slot is freed",
}


_HEAD = """\
# What must survive

Each case names the tests that show it (`pytest.mark.case`). This page is made by `python -m tests.support.acceptance` and
checked by a test.

How "nothing lost" is counted: clients keep a ledger outside the system (`tests/support/ledger.py`): ok, fail or unknown for
each Message-ID. After healing, **lost** (ok, not stored), **corrupt**, **phantom** (stored, never sent) and **duplicates**
must all be 0. Every run prints its seed, its faults and N.
"""


def shown() -> dict[int, list[str]]:
    """Case number → names of the tests that carry its marker, as `path::function`."""
    found: dict[int, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        module = [number for node in tree.body if _is_pytestmark(node) for number in _cases(ast.walk(node))]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                numbers = module + [number for decorator in node.decorator_list for number in _cases(ast.walk(decorator))]
                for number in dict.fromkeys(numbers):
                    found.setdefault(number, []).append(f"{path.relative_to(ROOT)}::{node.name}")
    return found


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


def _cases(nodes: object) -> list[int]:
    numbers = []
    for node in nodes:  # type: ignore[attr-defined] # ast.walk's iterator
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "case":
            numbers += [argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, int)]
    return numbers


def render() -> str:
    """The page."""
    found = shown()
    lines = [_HEAD]
    for number, text in sorted(CASES.items()):
        lines.append(f"{number}. {text}")
        lines += [f"   - `{name}`" for name in found.get(number, [])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
